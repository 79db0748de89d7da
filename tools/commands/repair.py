"""`replica repair`: damaged copies made good from intact ones; the verdict before, and the verdict after."""

import argparse
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from glance_replicas.catalogue.selection import Selection
from glance_replicas.errors import ConfigError, Refused
from glance_replicas.location import described, kind, redact
from glance_replicas.model import Image, Location
from glance_replicas.repair.plan import Action, Step
from glance_replicas.verify.summary import IntactCopies

from .. import advice, held_back
from ..command import DAMAGED, UNKNOWN, ClosedLister
from ..options import selection, values
from ..output.cells import Text
from ..output.progress import Progress
from ..output.text import count, short
from ..put_back import COLUMNS as PUT_BACK

if TYPE_CHECKING:
    from ...repair.flow import RepairFlow

COLUMNS = ("Image", "Name", "Action", "Kind", "Host", "Store", "Before", "After", "From", "URL")


class Repair(ClosedLister):
    """Make damaged copies good from intact ones: cached copies are fetched anew, objects in stores written in place.

    Without --yes only the plan is shown. Every copy is read in full before, and what was repaired after. An image
    without an intact copy is reported as lost, and nothing of it is touched. With --to-store an image that no store has
    any more is written into one, from its cached copies. Exit status: 0 no damage is left; 1 some is; 3 something could
    not be checked.
    """

    example = "replica repair IMAGE --yes"

    columns = (*COLUMNS, *PUT_BACK)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The selection, and the bounds."""
        parser = super().get_parser(prog_name)
        selection.add_options(parser)
        add = parser.add_argument
        add("--all", action="store_true", help="all images that the ledger knows to be damaged")
        text = "a longer plan is refused as a whole, unless the images are named (5)"
        add("--max-repairs", type=values.positive, default=5, metavar="N", help=text)
        add("--max-share", type=values.percent, metavar="PERCENT", help=held_back.HELP)
        add("--workers", type=values.positive, default=4, metavar="N", help="verifications at a time (4)")
        add("--wait", action="store_true", help="return when the hosts that were asked have fetched their copies anew")
        text = "put images that have no intact durable copy into this store, as Glance would, from a cached copy"
        add("--to-store", metavar="STORE", help=text)
        add("--yes", action="store_true", help="do it; without, only the plan is shown")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """The plan, or what was done."""
        wanted = selection.named(parsed_args)
        if parsed_args.yes and not self.ledger.is_current():
            raise Refused(
                "the ledger's tables are missing or old, and every change has to be recorded; run: replica db upgrade"
            )
        if parsed_args.to_store:
            return PUT_BACK, self._put_back(wanted, parsed_args)
        self._held = held_back.HeldBack(parsed_args.max_share)
        images = self._images(wanted, parsed_args.max_repairs)
        self._remedy = self._made(parsed_args.workers)
        steps = [step for image in images for step in self._remedy.plan(image) if wanted.has(step.target)]
        steps = [step for step in steps if not self._held.has(step.target, step.before.verdict)]
        if not wanted.ids:
            _bound(sum(step.action.is_due for step in steps), parsed_args.max_repairs)
        if parsed_args.yes:
            steps = self._acted(steps, parsed_args.wait)
        self.lines = list(_closing(steps, len(images), parsed_args.yes))
        for step in steps:
            self._weigh(step)
        return COLUMNS, [_row(step) for step in steps]

    def _put_back(self, wanted: Selection, parsed: argparse.Namespace) -> list[tuple[Any, ...]]:
        from ..put_back import PuttingBack

        if not wanted.ids:
            raise ConfigError("name the images that are to be put into a store")
        images = [image for image, _ in self.with_states(wanted)]
        self._progress = Progress(self.app.stderr, 0, quiet=self.app.options.verbose_level == 0)
        self._written = 0
        work = PuttingBack(self, parsed.to_store, parsed.workers, self._wrote)
        try:
            rows = [work.one(image, parsed.yes) for image in images]
        finally:
            self._progress.end()
        self.lines = work.lines
        return rows

    def _images(self, wanted: Selection, most: int) -> list[Image]:
        """Those named; of others those with a copy that the ledger has as damaged, unless these are too many."""
        found: list[tuple[Image, list[Location]]] = []
        for image, states in self.with_states(wanted):
            known = [
                (location, last) for location in image.locations if wanted.has(location) and (last := states(location))
            ]
            damaged = [location for location, last in known if last.verdict.is_damage]
            for location, last in known:
                self._held.see(location, last)
            if image.has_no_copy:
                self.note(f"image {image.id} is lost: it has no location at all; restore it from where it came from")
                self.worsen(DAMAGED)
            elif wanted.ids or damaged:
                found.append((image, damaged))
        return [image for image, _ in found] if wanted.ids else self._due(found, most)

    def _due(self, found: list[tuple[Image, list[Location]]], most: int) -> list[Image]:
        """The images whose damage is not that of a whole store."""
        if self.known.is_lost:
            raise Refused("without the ledger it is not known what is damaged; name the images")
        if self._held.decide(self.note):
            self.worsen(DAMAGED)
        left = [(image, [location for location in damaged if not self._held.has(location)]) for image, damaged in found]
        _bound(sum(len(damaged) for _, damaged in left), most)
        return [image for image, damaged in left if damaged]

    def _made(self, workers: int) -> "RepairFlow":
        from glance_replicas.repair import rewrite
        from glance_replicas.stores import writers

        from ...repair.flow import RepairFlow

        places = writers.from_settings(self.settings)
        self._progress = Progress(self.app.stderr, 0, quiet=self.app.options.verbose_level == 0)
        self._written = 0
        rewriter = rewrite.Rewriter(self.catalogue, self.sources, places)
        made = functools.partial(RepairFlow, self.settings, self.ledger, self.sources, places, rewriter)
        return made(workers=workers, keep=self.known.record, progress=self._wrote)

    def _wrote(self, length: int) -> None:
        self._written += length
        self._progress.show(0, self._written, "written anew")

    def _acted(self, steps: list[Step], wait: bool) -> list[Step]:
        """The steps with their outcomes, in their order. Ctrl-C ends the waiting, not the hosts."""
        done = [self._remedy.act(step) for step in steps]
        try:
            asked = [step for step in done if step.action is Action.ASKED]
            ended = {}
            for step in self._remedy.wait(asked, self._waited) if wait else ():
                ended[id(step.before)] = step
        except KeyboardInterrupt:
            self.note("the hosts go on; see: replica copy list")
            raise
        finally:
            self._progress.end()
        return [ended.get(id(step.before), step) for step in done]

    def _waited(self, number: int, image_id: str) -> None:
        self._progress.show(number, 0, image_id)

    def _weigh(self, step: Step) -> None:
        if step.action.leaves_damage:
            self.worsen(DAMAGED)
        elif step.action is Action.KEEP:
            self.worsen(UNKNOWN)


def _bound(number: int, most: int) -> None:
    if number > most:
        raise Refused(
            f"{number} damaged copies are more than --max-repairs {most}, and none was repaired. So many have a common "
            f"cause: find it first (replica verify --all); then name the images, or add --max-repairs {number}"
        )


def _closing(steps: Sequence[Step], images: int, acted: bool) -> Iterator[str]:
    """Each copy with what comes next, then the sum."""
    for step in steps:
        text = "" if step.action.is_due else f"{step.action}: "
        reason = f"; {step.reason}" if step.reason else ""
        yield short(f"{text}{advice.problem(step.image, step.before)}{reason}")
        yield f"    {_next(step)}"
    if not steps:
        verified = f"{count(images, 'image')} verified" if images else "the ledger knows of no damage"
        yield f"nothing to repair: {verified}"
        return
    actions = [step.action for step in steps]
    parts = ", ".join(f"{actions.count(action)} {action}" for action in Action if action in actions)
    hint = ", add --yes to do it" if any(action.is_due for action in actions) else ""
    yield parts if acted else f"{parts}; nothing was done{hint}"


def _next(step: Step) -> str:
    """What to do, or what was done."""
    image_id, target = step.image.id, step.target
    done = {
        Action.RESTORED: "intact again: read back in full",
        Action.HEALED: "nothing was written",
        Action.REFILLED: f"intact again: host {target.host} has fetched it anew",
        Action.ASKED: f"host {target.host} drops it and fetches it anew by itself; see: replica copy list {image_id}",
        Action.FAILED: f"next: replica repair {image_id} --yes, once the cause above is fixed",
        Action.RESTORE: f"next: replica repair {image_id} --yes writes it anew from the one {_source(step)}",
        Action.REFILL: f"next: replica repair {image_id} --yes has host {target.host} fetch it anew",
    }
    return done.get(step.action) or f"next: {_advice(step)}"


def _advice(step: Step) -> str:
    """Of a copy that is left as it is."""
    image_id, verdict = step.image.id, step.before.verdict
    if step.action is Action.LOST:
        return f"keep everything, and restore the image from where it came from; then: replica verify {image_id}"
    if verdict.is_unknown:
        return advice.next_step(step.image, step.before, IntactCopies())
    if step.action is Action.KEEP:
        return f"find out why copies did not answer, then: replica repair {image_id}"
    if any(not location.is_cached for location in step.intact):
        return f"replica prune {image_id} --state {verdict}"
    return f"keep the one {_source(step)} and upload the image again from it"


def _source(step: Step) -> str:
    return described(step.intact[0]) if step.intact else "that needs no bytes"


def _row(step: Step) -> tuple[Any, ...]:
    location, source = step.target, step.intact[0] if step.intact else None
    origin = source and (source.host or source.store or redact(source.url))
    return (
        *(
            step.image.id,
            Text(step.image.name),
            str(step.action),
            kind(location),
            Text(location.host),
            Text(location.store),
        ),
        *(str(step.before.verdict), Text(step.after and str(step.after.verdict)), Text(origin)),
        redact(location.url),
    )
