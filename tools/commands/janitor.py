"""`replica janitor --once`: one pass of the janitor of this host, for cron."""

import argparse
import dataclasses

from glance_replicas.errors import ConfigError

from ..command import UNKNOWN, OnHost


class Janitor(OnHost):
    """Do one pass of this host's janitor and print what it did.

    Exit status: 0, or 3 when the pass met problems (each is on stderr).
    """

    example = "replica janitor --once"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """One option."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--once", action="store_true", help="one pass, then end")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Print the counts; problems go to stderr."""
        if not parsed_args.once:
            raise ConfigError(
                "replica janitor runs one pass: add --once (and a line in cron); for a janitor that stays, leave "
                "[replicas] janitor = true and the cache filter runs it"
            )
        from glance_replicas.host.local_host import LocalHost
        from glance_replicas.janitor import passes

        done = dataclasses.asdict(passes.Janitor(LocalHost.assemble(self.settings)).run_once())
        problems = done.pop("problems")
        self.app.stdout.writelines(f"{name}: {value}\n" for name, value in done.items())
        for problem in problems:
            self.note(problem)
            self.worsen(UNKNOWN)
