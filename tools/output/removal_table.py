"""How a plan of `replica prune` looks: rows for programs, a narrower table for people, and the lines below."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cliff.columns import FormattableColumn

from glance_replicas.location import described, is_ours, kind, redact
from glance_replicas.removal import proof

from .cells import Text
from .text import count, short

if TYPE_CHECKING:
    from ...removal.flow import Step

COLUMNS = ("Image", "Name", "Action", "Kind", "Host", "Store", "Reason", "Proof", "URL")
BRIEF = ("Image", "Action", "Copy", "Reason", "Keeps")
_WIDTHS = (20, 36, 30)  # of the last three: 146 characters in all


class Why(FormattableColumn[Any]):  # type: ignore[misc, unused-ignore]
    """A proof or a refusal."""

    def human_readable(self) -> str:
        """The copies that stay."""
        return str(self._value) if isinstance(self._value, proof.Proof) else "-"

    def machine_readable(self) -> Any:
        """The whole proof."""
        return self._value.as_dict() if isinstance(self._value, proof.Proof) else None


def closing(steps: "Sequence[Step]", acted: bool) -> Iterator[str]:
    """What stays behind of a removal, and the sum."""
    for step in steps:
        if isinstance(step.answer, proof.Refusal):
            reason = step.answer.reason.replace(f"{step.answer.target}: ", "")
            yield short(f"image {step.image.id}: kept {described(step.target)}: {reason}")
            if step.answer.unknown:
                yield f"    next: replica verify {step.image.id}"
        elif step.removed:
            yield f"image {step.image.id}: {_left(step)}"
    proven = sum(isinstance(step.answer, proof.Proof) for step in steps)
    kept = f", {len(steps) - proven} kept" if len(steps) > proven else ""
    if not steps:
        yield "nothing to prune"
    elif acted:
        yield f"{sum(step.removed for step in steps)} removed{kept}"
    else:
        yield f"{count(proven, 'location')} can go{kept}; nothing was done" + (", add --yes to do it" if proven else "")


def _left(step: "Step") -> str:
    """What becomes of the bytes."""
    if is_ours(step.target) and not step.cause.leaves_bytes:
        return f"the file goes with the next pass of the janitor of host {step.target.host}"
    return f"out of the catalogue; what bytes there are were left {described(step.target)}"


def _action(step: "Step", acted: bool) -> str:
    return "removed" if step.removed else "keep" if acted or isinstance(step.answer, proof.Refusal) else "remove"


def row(step: "Step", acted: bool) -> tuple[Any, ...]:
    """One step in `COLUMNS`."""
    location, answer = step.target, step.answer
    return (
        *(step.image.id, Text(step.image.name), _action(step, acted), kind(location), Text(location.host)),
        *(Text(location.store), Text(answer.reason), Why(answer), redact(location.url)),
    )


def brief(step: "Step", acted: bool) -> tuple[Any, ...]:
    """One step in `BRIEF`; the lines below the table name the places in full."""
    location, answer = step.target, step.answer
    copy = f"cached on {location.host}" if location.host else f"{kind(location)} in {location.store or 'the store'}"
    keeps = str(answer).partition(": ")[2] if isinstance(answer, proof.Proof) else "-"
    cells = (short(Text(text).human_readable()) for text in (copy, answer.reason, keeps))
    wrapped = (textwrap.fill(text, width) for text, width in zip(cells, _WIDTHS, strict=True))
    return (step.image.id, _action(step, acted), *wrapped)
