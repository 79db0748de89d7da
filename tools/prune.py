"""`replica prune`: remove damaged locations, or cached copies by order, each with a proof of what stays."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cliff.columns import FormattableColumn

from glance_replicas import location
from glance_replicas import prune as rule
from glance_replicas.errors import ConfigError, Refused
from glance_replicas.model import Image, Location, Verdict

from . import selection, values
from .advice import where
from .command import DAMAGED, UNKNOWN, OnHostLister
from .report import Text, count, short

if TYPE_CHECKING:
    from .removal import Order, Step

COLUMNS = ("Image", "Name", "Action", "Kind", "Host", "Store", "Reason", "Proof", "URL")
Target = tuple[Image, list[Location]]


class Why(FormattableColumn[Any]):  # type: ignore[misc, unused-ignore]
    """A proof or a refusal."""

    def human_readable(self) -> str:
        """The copies that stay."""
        return str(self._value) if isinstance(self._value, rule.Proof) else "-"

    def machine_readable(self) -> Any:
        """The whole proof."""
        return self._value.as_dict() if isinstance(self._value, rule.Proof) else None


class Prune(OnHostLister):
    """Remove damaged locations (--state), or cached copies (--cached, --host), with a proof for each.

    Without --yes only the plan is shown. A location goes only when the image keeps --min-durable durable copies that
    have just been read in full and are intact; that is proven again under a lock just before. Exit status: 0 done, or
    nothing to do; 1 something was refused; 3 something could not be checked.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The selection, the order, and the bounds."""
        parser = super().get_parser(prog_name)
        selection.add_options(parser)
        add = parser.add_argument
        add("--all", action="store_true", help="all images")
        states = [str(one) for one in rule.DAMAGED]
        text = "remove what is in this state; may be repeated (all three)"
        add("--state", action="append", choices=states, default=[], help=text)
        add("--cached", action="store_true", help="remove cached copies, whatever their state")
        add("--min-durable", type=values.positive, default=1, metavar="N", help="durable copies an image keeps (1)")
        add("--max-removals", type=values.positive, default=20, metavar="N", help="a longer plan is refused (20)")
        add("--workers", type=values.positive, default=4, metavar="N", help="looks at a time (4)")
        add("--yes", action="store_true", help="do it; without, only the plan is shown")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """The plan, or what was done."""
        from .removal import Removal

        wanted, order = selection.from_arguments(parsed_args), _order(parsed_args)
        if wanted.is_everything and not parsed_args.all:
            raise ConfigError("nothing named: give image ids, --name, --owner, --host or --kind; or --all")
        if parsed_args.yes and not self.ledger.is_current():
            raise Refused("the ledger's tables are missing or old, and nothing goes unrecorded: replica db upgrade")
        targets = list(self._targets(wanted, order))
        if not wanted.ids:
            _bound(sum(len(found) for _, found in targets), parsed_args.max_removals)
        removal = Removal(self.catalogue, self.ledger, self.sources, order, workers=parsed_args.workers)
        steps = [step for image, found in targets for step in removal.plan(image, found)]
        for looks in {id(step.looks): step.looks for step in steps}.values():
            self.record(looks.results)
        _bound(sum(isinstance(step.answer, rule.Proof) for step in steps), parsed_args.max_removals)
        if parsed_args.yes:
            steps = [removal.act(step) if isinstance(step.answer, rule.Proof) else step for step in steps]
        self._lines = list(_closing(steps, parsed_args.yes))
        for step in steps:
            self._weigh(step)
        return COLUMNS, [_row(step, parsed_args.yes) for step in steps]

    def produce_output(self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Any]) -> int:
        """The rows, then what comes next and the sum."""
        rows = list(data)
        if rows or not self.for_people(parsed_args):
            super().produce_output(parsed_args, column_names, rows)
        self.closing(parsed_args, self._lines)
        return 0

    def _targets(self, wanted: selection.Selection, order: "Order") -> Iterator[Target]:
        """What may have to go: of named images every location asked for, of others what the ledger has as damaged."""
        for image, states in self.with_states(wanted):
            found = [one for one in image.locations if wanted.has(one)]
            if order.states is None:
                found = list(self._ours(found))
            elif not wanted.ids:
                if self._ledger_failed:
                    raise Refused("without the ledger it is not known what is damaged; name the images")
                found = [one for one in found if (last := states(one)) and last.verdict in order.states]
            if found:
                yield image, found

    def _ours(self, found: list[Location]) -> Iterator[Location]:
        for one in found:
            if location.is_ours(one):
                yield one
            elif one.is_cached:
                self.note(
                    f"image {one.image_id}: left alone, no registration of ours in spite of its metadata: {where(one)}"
                )

    def _weigh(self, step: "Step") -> None:
        if isinstance(step.answer, rule.Refusal):
            self.worsen(UNKNOWN if step.answer.unknown else DAMAGED)


def _order(parsed: argparse.Namespace) -> "Order":
    from .removal import Order

    if parsed.cached and parsed.state:
        raise ConfigError(
            "--cached and --state exclude each other; damaged cached copies only: --kind cached --state ..."
        )
    if parsed.cached or (parsed.host and not parsed.state):
        return Order(None, parsed.min_durable)
    return Order(tuple(Verdict(one) for one in parsed.state) or rule.DAMAGED, parsed.min_durable)


def _bound(number: int, most: int) -> None:
    if number > most:
        raise Refused(
            f"{count(number, 'removal')} are more than --max-removals {most}, and none was done; name fewer images, or "
            f"add --max-removals {number} if so many are meant to go"
        )


def _closing(steps: "Sequence[Step]", acted: bool) -> Iterator[str]:
    """What stays behind of a removal, and the sum."""
    for step in steps:
        if isinstance(step.answer, rule.Refusal):
            reason = step.answer.reason.replace(f"{step.answer.target}: ", "")
            yield short(f"image {step.image.id}: kept {where(step.target)}: {reason}")
            if step.answer.unknown:
                yield f"    next: replica verify {step.image.id}"
        elif step.removed and location.is_ours(step.target):
            yield f"image {step.image.id}: the file goes with the next pass of the janitor of host {step.target.host}"
        elif step.removed:
            yield f"image {step.image.id}: out of the catalogue; what bytes there are were left {where(step.target)}"
    proven = sum(isinstance(step.answer, rule.Proof) for step in steps)
    kept = f", {len(steps) - proven} kept" if len(steps) > proven else ""
    if not steps:
        yield "nothing to prune"
    elif acted:
        yield f"{sum(step.removed for step in steps)} removed{kept}"
    else:
        yield f"{count(proven, 'location')} can go{kept}; nothing was done" + (", add --yes to do it" if proven else "")


def _row(step: "Step", acted: bool) -> tuple[Any, ...]:
    one, answer = step.target, step.answer
    action = "removed" if step.removed else "keep" if acted or isinstance(answer, rule.Refusal) else "remove"
    return (
        *(step.image.id, Text(step.image.name), action, location.kind(one), Text(one.host), Text(one.store)),
        *(Text(answer.reason), Why(answer), location.redact(one.url)),
    )
