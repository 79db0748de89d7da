"""Cells of tables that read well for people and stay plain data for programs."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cliff.columns import FormattableColumn

from .text import NOTHING, age, short, size, visible

if TYPE_CHECKING:
    from glance_replicas.client.document import State


class Bytes(FormattableColumn[Any]):  # type: ignore[misc, unused-ignore]
    """A number of bytes, or None."""

    def human_readable(self) -> str:
        """In units."""
        return size(self._value)


class Percent(FormattableColumn[Any]):  # type: ignore[misc, unused-ignore]
    """A part of one, or None."""

    def human_readable(self) -> str:
        """In percent."""
        return NOTHING if self._value is None else f"{100 * self._value:.0f} %"


class Age(FormattableColumn[Any]):  # type: ignore[misc, unused-ignore]
    """Seconds, or None."""

    def human_readable(self) -> str:
        """In one unit."""
        return NOTHING if self._value is None else age(self._value)


class When(FormattableColumn[Any]):  # type: ignore[misc, unused-ignore]
    """A moment in UTC, or None: `3 h ago`; ISO 8601 for programs.

    `now` by the clock that the moment is of, which is the ledger's and not this machine's.
    """

    def __init__(self, moment: datetime | None, now: datetime) -> None:
        super().__init__(moment)
        self._now = now

    def human_readable(self) -> str:
        """As an age."""
        return NOTHING if self._value is None else f"{age((self._now - self._value).total_seconds())} ago"

    def machine_readable(self) -> Any:
        """As ISO 8601."""
        return None if self._value is None else self._value.isoformat()


class Text(FormattableColumn[Any]):  # type: ignore[misc, unused-ignore]
    """A text, or None."""

    def human_readable(self) -> str:
        """`-` for none; nothing that would change the terminal."""
        if self._value is None:
            return NOTHING
        return short(visible(str(self._value)))


def seen(state: "State | None") -> When:
    """When a copy was last verified, as old as whoever told it said; else by this machine's clock."""
    moment, age_seconds = (state.checked_at, state.age_seconds) if state else (None, None)
    if moment is None or age_seconds is None:
        return When(moment, datetime.now(UTC))
    return When(moment, moment + timedelta(seconds=age_seconds))
