"""The values of options as people write them: image ids, durations, sizes. Wrong ones end with usage and status 2."""

import argparse
import re
from fractions import Fraction

from glance_replicas.model import is_image_id
from glance_replicas.verify.schedule import Sample

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def image_id(text: str) -> str:
    """An image id, as it was typed: Glance keeps the case that its user chose."""
    if not is_image_id(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an image id (a UUID such as 0fd1d7a0-4a8c-4b7e-9d6f-0f3b7c1f5a11); to find an image by "
            "its name: --name NAME"
        )
    return text


def seconds(text: str) -> float:
    """A duration: a number and one of s, m, h, d, w."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: write a number and s, m, h, d or w, such as 7d")
    return float(match[1]) * _SECONDS[match[2]]


def size(text: str) -> int:
    """Bytes: a whole number above 0 and, if you like, K, M, G or T (powers of 1024)."""
    match = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
    if not match or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size: write bytes, or a number and K, M, G or T, such as 20M"
        )
    return int(match[1]) * _BYTES[match[2]]


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def percent(text: str) -> Fraction:
    """A part of one, exactly: `10%` or `10` is a tenth; above 0, at most 100."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%?", text)
    if not match or not 0 < Fraction(match[1]) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage above 0 and up to 100, such as 10%")
    return Fraction(match[1]) / 100


def name(text: str) -> str:
    """A name that fits our tables."""
    if not re.fullmatch(r"[\w.:-]{1,64}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name: 1 to 64 letters, digits and any of _ . : -")
    return text


def sample(text: str) -> Sample:
    """A part of what is to be verified: `n/t`, `x%`, or a size."""
    if match := re.fullmatch(r"(\d+)/(\d+)", text):
        part, parts = int(match[1]), int(match[2])
        if 1 <= part <= parts:
            return Sample(text, (part - 1) / parts, part / parts)
    elif match := re.fullmatch(r"(\d+(?:\.\d+)?)%", text):
        if 0 < float(match[1]) <= 100:
            return Sample(text, 0.0, float(match[1]) / 100, is_random=True)
    else:
        return Sample(text, bytes=size(text))
    raise argparse.ArgumentTypeError(f"{text!r} is not a part: write n/t with n from 1 to t, x% up to 100%, or a size")
