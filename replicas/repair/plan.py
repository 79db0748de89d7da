"""Which damaged copies of an image can be made good, and how. Rules only, no I/O.

Only damage is repaired: what could not be asked may be intact. Nothing is touched of an image without an intact copy:
its last bytes, though damaged, are all there is.
"""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ..location import place
from ..model import Image, Location, Result
from ..verdict import Evidence, Verdict


class Action(enum.StrEnum):
    """What a step comes to."""

    RESTORE = "restore"  # a durable copy, in place
    REFILL = "refill"  # a cached copy, by its host
    KEEP = "keep"  # for want of an answer
    CANNOT = "cannot"  # damage that nothing here can put right
    LOST = "lost"  # no copy is intact
    RESTORED = "restored"
    REFILLED = "refilled"
    ASKED = "asked"  # the host was
    HEALED = "healed"  # by somebody else, since the plan
    FAILED = "failed"

    @property
    def is_due(self) -> bool:
        """It is still to be done."""
        return self in (Action.RESTORE, Action.REFILL)

    @property
    def leaves_damage(self) -> bool:
        """After it the copy is known to be damaged."""
        return self.is_due or self in (Action.CANNOT, Action.LOST, Action.FAILED)


@dataclass(frozen=True)
class Step:
    """One copy that is not intact: what was seen of it, what is done about it, and what was seen after that."""

    image: Image
    before: Result
    action: Action
    reason: str = ""
    intact: tuple[Location, ...] = ()  # the copies it can be made from, every byte read just now
    after: Result | None = None

    @property
    def target(self) -> Location:
        """The copy."""
        return self.before.location

    def became(self, action: Action, reason: str = "", after: Result | None = None) -> "Step":
        """The same step with its outcome."""
        return replace(self, action=action, reason=reason, after=after)


def plan(image: Image, results: Iterable[Result], obstacle: Callable[[Location], str | None]) -> list[Step]:
    """A step for each copy that is not intact; two names of one copy are one step.

    `results` are fresh, and of all copies. `obstacle` says why this host cannot repair a copy, None: it can. An empty
    image is made good from nothing, as long as it has a digest that says that it is to be empty.
    """
    seen = {place(result.location): result for result in results}
    intact = tuple(result.location for result in seen.values() if _is_proven(result))
    is_open = any(result.verdict.is_unknown for result in seen.values())
    is_empty = image.size == 0 and image.digest is not None
    steps = []
    for result in seen.values():
        if result.verdict is not Verdict.INTACT:
            action, reason = _decide(result, bool(intact) or is_empty, is_open, obstacle)
            steps.append(Step(image, result, action, reason, intact))
    return steps


def _is_proven(result: Result) -> bool:
    return result.verdict is Verdict.INTACT and result.evidence is Evidence.FULL


def _decide(
    result: Result, has_source: bool, is_open: bool, obstacle: Callable[[Location], str | None]
) -> tuple[Action, str]:
    if result.verdict.is_unknown:
        return Action.KEEP, "its state is not known, and only damage is repaired"
    if not has_source and is_open:
        return Action.KEEP, "no copy is known to be intact, and some could not be asked"
    if not has_source:
        return Action.LOST, "no copy of the image is intact; nothing was touched"
    if why := obstacle(result.location):
        return Action.CANNOT, why
    return (Action.REFILL if result.location.is_cached else Action.RESTORE), ""
