"""A part of what is due: `n/t`, `x%`, or a size."""

import argparse
import re
from dataclasses import dataclass

from . import values


@dataclass(frozen=True)
class Sample:
    """Places whose key falls into [first, end) of a circle of 1.0, turned by the seed; of these the oldest `bytes`."""

    text: str = "all"
    first: float = 0.0
    end: float = 1.0
    bytes: int | None = None
    is_random: bool = False

    def has(self, place: str, seed: str) -> bool:
        """Whether a place (`ledger.place_key`) is in it. The parts 1/t to t/t have each place once, with any seed."""
        if self.first == 0.0 and self.end == 1.0:
            return True
        turned = _point(f"{seed}/{place}") if self.is_random else int(place[:13], 16) / 16**13
        return self.first <= turned < self.end


def parse(text: str) -> Sample:
    """The value of `--sample`."""
    if match := re.fullmatch(r"(\d+)/(\d+)", text):
        part, parts = int(match[1]), int(match[2])
        if 1 <= part <= parts:
            return Sample(text, (part - 1) / parts, part / parts)
    elif match := re.fullmatch(r"(\d+(?:\.\d+)?)%", text):
        if 0 < float(match[1]) <= 100:
            return Sample(text, 0.0, float(match[1]) / 100, is_random=True)
    else:
        return Sample(text, bytes=values.size(text))
    raise argparse.ArgumentTypeError(f"{text!r} is no part: write n/t with n from 1 to t, x% up to 100%, or a size")


def _point(text: str) -> float:
    import hashlib

    return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 16**13
