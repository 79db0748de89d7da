"""Sizes, durations, counts and texts as people read them."""

import re

NOTHING = "-"
_DIGEST = re.compile(r"\b[0-9a-f]{32,}\b")


def size(number: float | None) -> str:
    """Bytes in the largest binary unit below them."""
    if number is None:
        return NOTHING
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def age(seconds: float) -> str:
    """A duration in the one unit that says enough: `40 s`, `3 h`."""
    for limit, unit, divisor in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{max(0, int(seconds / divisor))} {unit}"
    return f"{int(seconds / 86400)} d"


def count(number: int, one: str, more: str | None = None) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def short(text: str) -> str:
    """The text with digests cut to what tells them apart."""
    return _DIGEST.sub(lambda match: match[0][:12] + "...", text)


def visible(text: str) -> str:
    """The text with control characters, which users may write into names, as escapes."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
