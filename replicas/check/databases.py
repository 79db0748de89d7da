"""Glance's database and the ledger."""

from .facts import Facts
from .finding import ERROR, INFO, Finding, Findings


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


RULES = (_databases,)
