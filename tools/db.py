"""`replica db upgrade`: the ledger's tables, made or brought up to date."""

import argparse

from .command import OnHost


class Upgrade(OnHost):
    """Make the ledger's tables, or bring them to this version.

    Safe to run again, on any host, and while hosts are working: the first one does it, the others find it done.
    """

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
