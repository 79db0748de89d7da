"""`replica audit log`: what was removed, by whom, when and why, and the proof that it could go."""

import argparse
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from cliff.columns import FormattableColumn

from glance_replicas.ledger.ledger import Withdrawal

from ..command import OnHostLister
from ..options import values
from ..output.cells import Text, When
from ..output.text import count, short

COLUMNS = ("Number", "Requested", "Finished", "Image", "Host", "Who", "Reason", "Proof", "URL")
BRIEF = ("Number", "Requested", "Image", "Host", "Who", "Reason", "Proof")
_WIDTHS = (12, 18, 30, 22)  # of the last four: about 150 characters in all


class Keeps(FormattableColumn[Any]):  # type: ignore[misc, unused-ignore]
    """A proof as it was written down, or None."""

    def human_readable(self) -> str:
        """The copies it rests on; why it was forced, or not done."""
        if self._value is None:
            return "none"
        for name, key in (("refused", "refused"), ("forced", "why")):
            if self._value.get(name):
                return short(f"{name}: {self._value.get(key)}")
        kept = self._value.get("keeps", [])
        names = ", ".join(str(copy.get("store") or copy.get("url")) for copy in kept if isinstance(copy, Mapping))
        return f"{count(len(kept), 'intact copy', 'intact copies')}: {names}"

    def machine_readable(self) -> Any:
        """All of it."""
        return self._value


class AuditLog(OnHostLister):
    """List what was withdrawn from the catalogue, newest first: who, when, why, and the proof.

    A removal that is still open is named below the table with what comes next. Reads the ledger only. Exit status: 0
    done; 3 the ledger does not answer.
    """

    example = "replica audit log --open"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The filters."""
        parser = super().get_parser(prog_name)
        add = parser.add_argument
        add("image", nargs="*", type=values.image_id, metavar="IMAGE", help="only these images")
        add("--host", metavar="HOST", help="only cached copies of this host (its host_name)")
        add("--since", type=values.seconds, metavar="AGE", help="only what was asked for within this time: 7d")
        add("--open", action="store_true", help="only what is not finished")
        add("--limit", type=values.positive, default=100, metavar="N", help="at most so many, the newest (100)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """One row for each withdrawal."""
        self._found = self.ledger.withdrawals(
            parsed_args.limit,
            image_ids=parsed_args.image or None,
            host=parsed_args.host,
            within_seconds=parsed_args.since,
            is_open=parsed_args.open,
        )
        now = self.now()
        if self.for_people(parsed_args) and not parsed_args.columns:
            return BRIEF, [_brief(withdrawal, now) for withdrawal in self._found]
        return COLUMNS, [_row(withdrawal, now) for withdrawal in self._found]

    def produce_output(self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Any]) -> int:
        """The rows, then the open ones and the sum."""
        super().produce_output(parsed_args, column_names, data)
        self.closing(parsed_args, list(self._closing(parsed_args.limit)))
        return 0

    def _closing(self, limit: int) -> Iterator[str]:
        unfinished = [withdrawal for withdrawal in self._found if withdrawal.finished_at is None]
        for withdrawal in unfinished:
            yield short(f"image {withdrawal.image_id}: removal {withdrawal.id} is open: {withdrawal.reason}")
            yield f"    next: {_next(withdrawal)}"
        more = ", older ones were left out (--limit)" if len(self._found) == limit else ""
        yield f"{count(len(self._found), 'removal')}, {len(unfinished)} open{more}"


def _next(withdrawal: Withdrawal) -> str:
    """How it comes to its end."""
    if withdrawal.host is None or withdrawal.row_only:
        return f"it was interrupted; prove it once more, or close it: replica prune {withdrawal.image_id} --yes"
    host = withdrawal.host
    return f"the janitor of host {host} removes the file with its next pass; see that it runs: replica host {host}"


def _row(withdrawal: Withdrawal, now: datetime) -> tuple[Any, ...]:
    return (
        *(
            withdrawal.id,
            When(withdrawal.requested_at, now),
            When(withdrawal.finished_at, now),
            withdrawal.image_id,
            Text(withdrawal.host),
            Text(withdrawal.who),
        ),
        *(Text(withdrawal.reason), Keeps(withdrawal.proof), withdrawal.url),
    )


def _brief(withdrawal: Withdrawal, now: datetime) -> tuple[Any, ...]:
    """For people: what is open is told below the table."""
    cells = (Text(withdrawal.host), Text(withdrawal.who), Text(withdrawal.reason), Keeps(withdrawal.proof))
    wrapped = (textwrap.fill(cell.human_readable(), width) for cell, width in zip(cells, _WIDTHS, strict=True))
    return (withdrawal.id, When(withdrawal.requested_at, now), withdrawal.image_id, *wrapped)
