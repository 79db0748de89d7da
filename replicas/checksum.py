"""Digests: which one an image has, and computing it."""

import functools
import hashlib
import hmac
from collections.abc import Iterable
from typing import Protocol

from .model import Digest

BLOCK = 1 << 20  # bytes of the tail that waits for the digest, and the most in any chunk
PIECE = 256 << 10  # bytes read at a time: larger ones leave the processor's cache, and cost system time in new pages


class Hash(Protocol):
    """What hashlib gives; only these two calls are used."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add bytes."""

    def hexdigest(self) -> str:
        """Lower-case hex of everything added."""


def expected(os_hash_algo: str | None, os_hash_value: str | None, checksum: str | None) -> Digest | None:
    """The digest an image must have: its multihash, else its md5, else None (nothing to hold bytes against).

    A multihash of an algorithm this Python lacks counts as absent: md5 is then better than nothing.
    """
    if os_hash_algo and os_hash_value and _is_hex(os_hash_value, os_hash_algo):
        return Digest(os_hash_algo.lower(), os_hash_value.lower())
    if checksum and _is_hex(checksum, "md5"):
        return Digest("md5", checksum.lower())
    return None


def start(algorithm: str) -> Hash:
    """A running hash. Raises ValueError for an algorithm hashlib does not know."""
    return hashlib.new(algorithm, usedforsecurity=False)


def of(chunks: Iterable[bytes], algorithm: str) -> tuple[Digest, int]:
    """The digest and length, in bytes, of all chunks."""
    running, length = start(algorithm), 0
    for chunk in chunks:
        running.update(chunk)
        length += len(chunk)
    return Digest(algorithm, running.hexdigest()), length


def agrees(expected_digest: Digest, value: str) -> bool:
    """Whether a computed hex value is the expected one."""
    return hmac.compare_digest(expected_digest.value, value.lower())


def _is_hex(value: str, algorithm: str) -> bool:
    try:
        size = _digest_size(algorithm)
        return size > 0 and len(bytes.fromhex(value)) == size
    except (ValueError, TypeError):
        return False


@functools.lru_cache(64)
def _digest_size(algorithm: str) -> int:
    """In bytes. Raises ValueError for an algorithm hashlib does not know."""
    return hashlib.new(algorithm.lower(), usedforsecurity=False).digest_size
