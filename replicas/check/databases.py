"""Glance's database and the ledger."""

from .facts import Facts
from .finding import ERROR, INFO, WARNING, Finding, Findings


def _databases(facts: Facts) -> Findings:
    if facts.catalogue_problem:
        why, remedy = "copies are neither registered nor withdrawn", "check [database] connection and the server"
        yield Finding(ERROR, f"Glance's database: {facts.catalogue_problem}", why, remedy)
    elif facts.ledger_problem:
        why, remedy = "no verdict and no heartbeat is recorded; prune refuses to act", "check [replicas] connection"
        yield Finding(ERROR, f"the ledger: {facts.ledger_problem}", why, remedy)
    elif facts.ledger_is_current is False:
        why = "no verdict and no heartbeat is recorded; prune refuses to act"
        yield Finding(ERROR, "the tables of the ledger are missing or old", why, "replica db upgrade")
    if facts.only_cached:
        what = f"{len(facts.only_cached)} images have no durable copy, among them {', '.join(facts.only_cached[:3])}"
        why = "what is only cached on hosts may vanish at any time"
        yield Finding(ERROR, what, why, f"replica repair {facts.only_cached[0]} --to-store STORE --yes, for each")
    if facts.dialect == "sqlite" and len(facts.hosts) > 1:
        why = "SQLite on a shared disk loses or locks the catalogue"
        remedy = "move Glance to PostgreSQL or MariaDB"
        yield Finding(ERROR, f"{len(facts.hosts)} hosts, and Glance's database is SQLite", why, remedy)
    if facts.encrypts_locations:
        why = "a host with another key, or none, can neither read nor write locations"
        remedy = "use the same metadata_encryption_key on every host"
        yield Finding(INFO, "metadata_encryption_key is set", why, remedy)


def _galera(facts: Facts) -> Findings:
    """What Galera changes, and what is weak there (docs/databases.md)."""
    if not facts.galera_nodes:
        return
    what = f"Glance's database is a Galera cluster of {facts.galera_nodes} node{'s' if facts.galera_nodes > 1 else ''}"
    why = "locks hold on one node only; of two decisions on two nodes one is done again, or refused, when it commits"
    remedy = "nothing, where all hosts have this version; docs/databases.md says what each error means"
    yield Finding(INFO, what, why, remedy)
    if facts.galera_nodes % 2 == 0:
        what = f"a Galera cluster of {facts.galera_nodes} nodes can fall into two halves without a majority"
        why = "then all nodes stop: no image is found and no copy is registered"
        if facts.galera_nodes == 2:
            why = "when one fails, or they cannot reach each other, both stop: no image is found, no copy is registered"
        yield Finding(WARNING, what, why, "add a node, or an arbitrator (garbd)")
    if facts.galera_state != "Synced":
        why = "what it answers may be old, and writes wait for it"
        yield Finding(
            WARNING, f"the Galera node is in state {facts.galera_state}", why, "let it catch up, or use another node"
        )
    if facts.ledger_is_elsewhere:
        why = "in place of our rows, which rivals both write, the location rows of the image are written (updated_at)"
        yield Finding(
            INFO,
            "[replicas] connection is not Glance's database",
            why,
            "nothing has to be done; unset it to use Glance's",
        )


RULES = (_databases, _galera)
