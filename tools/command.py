"""What the commands that work on a glance-api host share: its settings, catalogue and ledger, and the exit status."""

import argparse
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cliff.command import Command
from cliff.lister import Lister

from glance_replicas import signing
from glance_replicas.errors import CatalogueError, ConfigError, LedgerError, Refused, ReplicaError
from glance_replicas.model import Image, Last, Location, Result

from .output.formats import Columns

if TYPE_CHECKING:  # not needed by `replica --help`, and slow to import
    from glance_replicas.catalogue.images import Catalogue
    from glance_replicas.catalogue.selection import Selection
    from glance_replicas.ledger.best_effort import BestEffortLedger
    from glance_replicas.ledger.cached_copies import BestEffortCopies
    from glance_replicas.ledger.ledger import Ledger
    from glance_replicas.settings import Settings
    from glance_replicas.stores.sources import Sources

INTACT, DAMAGED, USAGE, UNKNOWN = 0, 1, 2, 3


def status_of(error: ReplicaError) -> int:
    """The exit status that an error means."""
    if isinstance(error, ConfigError):
        return USAGE
    return DAMAGED if isinstance(error, Refused) else UNKNOWN


class Example:
    """A command of which `example`, one command line, stands below the options of `--help` and in the reference.

    It is typed as it stands there; IMAGE is the id of an image.
    """

    example = ""

    def get_epilog(self) -> str:
        """What cliff prints below the options."""
        return f"Example: {self.example}" if self.example else ""


class OnHost(Example, Command):  # type: ignore[misc, unused-ignore]
    """A command that reads glance-api.conf. `status` is its exit status unless it raises."""

    status = INTACT

    @functools.cached_property
    def settings(self) -> "Settings":
        """This host's settings. Raises ConfigError."""
        from glance_replicas import settings

        return settings.load(self.app.options.config_file)

    @functools.cached_property
    def catalogue(self) -> "Catalogue":
        """Glance's rows."""
        from glance_replicas.catalogue.images import Catalogue

        return Catalogue(self.settings.database, self.settings.encryption_key, self._copies())

    @functools.cached_property
    def ledger(self) -> "Ledger":
        """Our own tables."""
        from glance_replicas.ledger.ledger import Ledger

        return Ledger(self.settings.ledger)

    def _copies(self) -> "BestEffortCopies":
        from glance_replicas.ledger.cached_copies import BestEffortCopies, CachedCopies

        return BestEffortCopies(
            CachedCopies(self.ledger.database), lambda _, question, otherwise: self.known.ask(question, otherwise)
        )

    @functools.cached_property
    def known(self) -> "BestEffortLedger":
        """What the ledger knows, for work that goes on without it."""
        from glance_replicas.ledger.best_effort import BestEffortLedger

        return BestEffortLedger(self.ledger, self.note)

    @functools.cached_property
    def sources(self) -> "Sources":
        """Readers of every location; URLs of hosts that the ledger knows, and of no others, are signed."""
        from glance_replicas.stores import sources

        return sources.from_settings(self.settings, signer=self._signer(), headers=sources.BACKGROUND, from_disk=True)

    def _signer(self) -> Callable[[Location], str]:
        """Of hosts that are silent, too, which may still answer; a signature is worth nothing at another address."""
        try:
            known = {host.name: host for host in self.ledger.hosts()} if self.settings.signing_keys else {}
        except LedgerError as error:
            self.note(f"{error}. Without the ledger no URL of a cached copy is signed: their verdict will be denied")
            known = {}
        return lambda copy: signing.sign_copy(copy, known, self.settings)

    def with_states(
        self, wanted: "Selection", *, full: bool = False
    ) -> Iterator[tuple[Image, Callable[[Location], Result | None]]]:
        """The images, and what gives the last result of a location; an id that names none makes the status 3."""
        return self.known.with_states(wanted.images(self.catalogue, self._unknown), full=full)

    def with_lasts(
        self, wanted: "Selection", *, early: bool = False
    ) -> Iterator[tuple[Image, Mapping[tuple[str, str], Last]]]:
        """The images, and what the ledger says of their places; an id that names none makes the status 3."""
        return self.known.with_lasts(wanted.images(self.catalogue, self._unknown), early=early)

    def now(self) -> datetime:
        """The ledger's time; this machine's when the ledger cannot be asked."""
        return self.known.now()

    def _unknown(self, text: str) -> None:
        self.note(text)
        self.worsen(UNKNOWN)

    def note(self, text: str) -> None:
        """One line for the operator on stderr."""
        self.app.stderr.write(f"replica: {text}\n")

    def worsen(self, status: int) -> None:
        """Exit with this status, unless a graver one stands: damage before unknown before intact."""
        gravity = (INTACT, UNKNOWN, DAMAGED)
        self.status = max(self.status, status, key=gravity.index)

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Do it and return the exit status. Ids are those of images as Glance spells them, if there are such."""
        if isinstance(typed := getattr(parsed_args, "image", None), list) and typed:
            parsed_args.image = self._spelled(typed)
        super().run(parsed_args)
        return self.status

    def _spelled(self, typed: Sequence[str]) -> list[str]:
        """Each id as typed if an image has it, else as the one image spells it that differs in case only."""
        try:
            others = self.catalogue.respelled(typed)
        except CatalogueError:
            return list(typed)  # who needs the catalogue will say so
        for image_id, alike in others.items():
            if len(alike) > 1:
                names = " and ".join(sorted(alike))
                raise ConfigError(f"image {image_id}: images {names} differ from it in case only; name one of them")
        return [others[image_id][0] if others.get(image_id) else image_id for image_id in typed]


class OnHostLister(Columns, OnHost, Lister):  # type: ignore[misc, unused-ignore]
    """A command whose result is a table, or in other formats the same rows for programs; `jsonl` streams."""

    def for_people(self, parsed_args: argparse.Namespace) -> bool:
        """Whether stdout is a table: then a summary may stand below it, else it goes to stderr."""
        return bool(parsed_args.formatter == "table")

    def closing(self, parsed_args: argparse.Namespace, lines: Iterable[str]) -> None:
        """The lines that come after the rows."""
        stream = self.app.stdout if self.for_people(parsed_args) else self.app.stderr
        stream.writelines(f"{line}\n" for line in lines)


class ClosedLister(OnHostLister):
    """A lister with `lines` below its rows: what comes next, and the sum. Of no rows people see the lines alone."""

    lines: Sequence[str] = ()

    def produce_output(self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Any]) -> int:
        """The rows, then the lines."""
        rows = list(data)
        if rows or not self.for_people(parsed_args):
            super().produce_output(parsed_args, column_names, rows)
        self.closing(parsed_args, self.lines)
        return 0
