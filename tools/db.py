"""`replica db upgrade` and `replica db check`: the ledger's tables, brought up to date, and whether they are."""

import argparse

from .command import DAMAGED, OnHost


class Upgrade(OnHost):
    """Make the ledger's tables, or bring them to this version.

    Run it once for a site, before the first start and after every upgrade of the package. Safe to run again, on any
    host, and while hosts are working: the first one does it, the others find it done. Exit status: 0 done; 3 the
    database does not answer.
    """

    example = "replica db upgrade"

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Print what was applied."""
        before = self.ledger.version()
        for revision in self.ledger.upgrade():
            self.app.stdout.write(f"applied {revision}\n")
        after = self.ledger.version()
        said = (
            f"the ledger was at {before or 'nothing'} and is at {after}"
            if before != after
            else f"the ledger is at {after}"
        )
        self.app.stdout.write(f"{said}\n")


class Check(OnHost):
    """Say whether the ledger's tables are those this version needs, and which revisions are to come.

    Changes nothing. Exit status: 0 they are; 1 they are not; 3 the database does not answer.
    """

    example = "replica db check"

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Print the revision, and what to do."""
        from glance_replicas.ledger import migrations

        known, at = migrations.revisions(), self.ledger.version()
        if at is not None and at not in known:
            fault = f"it is newer than this version of glance-replicas, which knows {known[-1]}: upgrade the package"
        elif at != known[-1]:
            to_come = known[known.index(at) + 1 :] if at else known
            fault = f"to come: {', '.join(to_come)}; run: replica db upgrade"
        elif missing := self.ledger.database.absent():
            fault = f"not there: {', '.join(missing)}; restore them from a backup of the database"
        else:
            self.app.stdout.write(f"the ledger is at {at}, as this version needs it\n")
            return
        self.app.stdout.write(f"the ledger is at {at or 'nothing'}; {fault}\n")
        self.worsen(DAMAGED)
