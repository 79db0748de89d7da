"""`replica prune`: remove damaged locations, or cached copies for a reason of the operator's, each with a proof."""

import argparse
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from glance_replicas.catalogue.selection import Selection
from glance_replicas.errors import Refused
from glance_replicas.ledger.best_effort import BATCH
from glance_replicas.location import described, is_ours
from glance_replicas.model import HOST_KEY, Image, Location, Result
from glance_replicas.removal import causes
from glance_replicas.removal import proof as rule

from ...verify.copy_identities import CopyIdentities
from .. import held_back
from ..command import DAMAGED, UNKNOWN, ClosedLister
from ..options import removal_order, selection, values
from ..output import removal_table
from ..output.text import count

if TYPE_CHECKING:
    from ...removal.flow import Removal, Step
    from ...removal.removal_facts import RemovalFacts, RemovalOrder

Target = tuple[Image, list[Location]]
States = Callable[[Location], Result | None]


class Prune(ClosedLister):
    """Remove damaged locations, or cached copies for another reason, with a proof for each.

    Without --yes only the plan is shown. A location goes only when the image keeps --min-durable durable copies that
    have just been read in full and are intact; that is proven again under a lock just before. Exit status: 0 done, or
    nothing to do; 1 something was refused; 3 something could not be checked.
    """

    example = "replica prune IMAGE --state corrupt --yes"

    columns = removal_table.COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The selection, the order, and the bounds."""
        parser = super().get_parser(prog_name)
        selection.add_options(parser)
        removal_order.add_options(parser)
        add = parser.add_argument
        add("--all", action="store_true", help="all images")
        add("--pinned", action="store_true", help="pinned copies, too")
        add("--min-durable", type=values.positive, default=1, metavar="N", help="durable copies an image keeps (1)")
        add("--max-removals", type=values.positive, default=20, metavar="N", help="a longer plan is refused (20)")
        text = "a plan with more than this part of the locations looked through is refused, such as 10%%; and "
        text += held_back.HELP
        add("--max-share", type=values.percent, metavar="PERCENT", help=text)
        add("--workers", type=values.positive, default=4, metavar="N", help="verifications at a time (4)")
        add("--yes", action="store_true", help="do it; without, only the plan is shown")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """The plan, or what was done."""
        from ...removal.flow import Removal

        wanted = selection.named(parsed_args)
        if parsed_args.yes and not self.ledger.is_current():
            raise Refused(
                "the ledger's tables are missing or old, and every change has to be recorded; run: replica db upgrade"
            )
        self._places = CopyIdentities(self.sources, self._unknown if parsed_args.duplicates else self.note)
        self._reasons = self._make_reasons(parsed_args)
        order = removal_order.from_arguments(parsed_args, self._reasons)
        removal = Removal(
            *(self.catalogue, self.ledger, self.sources, order), workers=parsed_args.workers, places=self._places
        )
        if parsed_args.yes:
            removal.settle()
        steps = self._plan(parsed_args, wanted, removal, order)
        if parsed_args.yes:
            steps = [removal.act(step) if isinstance(step.answer, rule.Proof) else step for step in steps]
        self.lines = list(removal_table.closing(steps, parsed_args.yes))
        for step in steps:
            self._weigh(step)
        if self.for_people(parsed_args) and not parsed_args.columns:
            return removal_table.BRIEF, [removal_table.brief(step, parsed_args.yes) for step in steps]
        return removal_table.COLUMNS, [removal_table.row(step, parsed_args.yes) for step in steps]

    def _make_reasons(self, parsed: argparse.Namespace) -> "RemovalFacts":
        from ...removal.removal_facts import RemovalFacts

        by_name = bool(parsed.image) and not (parsed.keep_cached or parsed.unused or parsed.quota)
        return RemovalFacts(
            self.catalogue,
            self.ledger,
            dead_after_seconds=self.settings.dead_after_seconds,
            pin_property=self.settings.pin_property,
            spares_pinned=not (parsed.pinned or by_name),
            places=self._places,
        )

    def _plan(
        self, parsed: argparse.Namespace, wanted: Selection, removal: "Removal", order: "RemovalOrder"
    ) -> "list[Step]":
        """Proofs and refusals, recorded; raises Refused when they are too many."""
        self._seen, self._held = 0, held_back.HeldBack(parsed.max_share)
        targets = self._allowed(list(self._targets(wanted, order)), wanted)
        bound = functools.partial(_bound, most=parsed.max_removals, share=parsed.max_share, seen=self._seen)
        if parsed.quota:
            steps = list(self._by_quota(targets, parsed, removal, bound))
        else:
            if not wanted.ids:
                bound(sum(len(found) for _, found in targets))
            steps = [step for image, found in targets for step in removal.plan(image, found)]
        for verified in {id(step.verified): step.verified for step in steps}.values():
            self.known.record(verified.results)
        bound(sum(isinstance(step.answer, rule.Proof) for step in steps))
        return steps

    def _targets(self, wanted: Selection, order: "RemovalOrder") -> Iterator[Target]:
        """What may have to go: of named images every location asked for, of others what the ledger has as damaged."""
        images = self.with_states(wanted)
        while batch := list(itertools.islice(images, BATCH)):
            cause_of = order.causes([image for image, _ in batch])
            for image, states in batch:
                chosen = [location for location in image.locations if wanted.has(location)]
                self._seen += sum(order.reads_targets or location.is_cached for location in chosen)
                found = [
                    location
                    for location in chosen
                    if self._may_go(image, location, cause_of(location), states, bool(wanted.ids))
                ]
                if found:
                    yield image, found

    def _allowed(self, targets: list[Target], wanted: Selection) -> list[Target]:
        """Those that no store at fault has lost; of named images all."""
        if wanted.ids or not self._held.decide(self.note):
            return targets
        self.worsen(DAMAGED)
        left = ((image, [location for location in found if not self._held.has(location)]) for image, found in targets)
        return [(image, found) for image, found in left if found]

    def _may_go(self, image: Image, location: Location, cause: causes.Cause, states: States, named: bool) -> bool:
        last = states(location) if isinstance(cause, causes.Damaged) else None
        if isinstance(cause, causes.Damaged):
            self._held.see(location, last)
        if isinstance(cause, causes.Damaged) and not named:
            if self.known.is_lost:
                raise Refused("without the ledger it is not known what is damaged; name the images")
            return last is not None and last.verdict in cause.states
        judged = cause.judge(image, location, (), self._places.identity)
        if isinstance(cause, causes.Ordered) and isinstance(judged, causes.Doubt) and HOST_KEY in location.metadata:
            foreign = "no registration of ours in spite of its metadata"
            why = f"{judged.reason} (--pinned takes it, too)" if is_ours(location) else foreign
            self.note(f"image {image.id}: left alone, {why}: {described(location)}")
        return isinstance(judged, str) or judged.unknown

    def _by_quota(
        self, targets: list[Target], parsed: argparse.Namespace, removal: "Removal", bound: Callable[[int], None]
    ) -> "Iterator[Step]":
        """Of each host the least used copies, as many as bring it down to its quota and no more."""
        downloads = self._reasons.downloads([image for image, _ in targets])
        copies = [(image, location) for image, found in targets for location in found]
        copies.sort(
            key=lambda copy: (copy[1].host or "", downloads.get((copy[0].id, copy[1].host or ""), 0), copy[1].row or 0)
        )
        for host, held in itertools.groupby(copies, key=lambda copy: copy[1].host or ""):
            over, mine = self._reasons.held(host) - parsed.quota, list(held)
            sizes = list(itertools.accumulate(image.size or 0 for image, _ in mine))
            bound(sum(before < over for before in itertools.chain([0], sizes[:-1])))
            for image, location in mine:
                if over <= 0:
                    break
                for step in removal.plan(image, [location]):
                    over -= (image.size or 0) * isinstance(step.answer, rule.Proof)
                    yield step

    def _weigh(self, step: "Step") -> None:
        if isinstance(step.answer, rule.Refusal):
            self.worsen(UNKNOWN if step.answer.unknown else DAMAGED)


def _bound(number: int, *, most: int, share: Fraction | None, seen: int) -> None:
    if number > most:
        raise Refused(
            f"{count(number, 'removal')} are more than --max-removals {most}, and none was done; name fewer images, or "
            f"add --max-removals {number} if so many are meant to go"
        )
    if share is not None and number > share * seen:
        raise Refused(
            f"{count(number, 'removal')} are more than --max-share {float(100 * share):g}% of the "
            f"{count(seen, 'location')} looked through, and none was done; find out why (replica verify), or "
            "allow a larger share"
        )
