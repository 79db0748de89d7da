"""One stream of an image's bytes out of many sources, and the guard that lets no wrong body end well."""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Protocol

from .. import checksum
from ..errors import Corrupt, ReplicaError, SourceError, Unreachable, WrongAnswer
from ..location import redact
from ..model import Digest, Location
from ..stores.body import Body

log = logging.getLogger(__name__)


class Opener(Protocol):
    """Opens a source."""

    def __call__(self, location: Location, offset: int, stop: int | None = None, /) -> Body:
        """As `sources.Sources.open`."""


_BEHIND = 32  # pieces
_LIFE_SIGN = 0.2  # seconds between two calls of who waits for a hash
_ROUNDS = 5  # times the whole list is tried again, each only if the round before brought bytes


class FailoverStream:
    """Reads `size` bytes, or to before `stop`, from the first source that works; goes on where it broke from the next.

    Iterate once. `used` lists the sources that gave bytes, so that a wrong digest can be laid at somebody's door.
    """

    def __init__(
        self,
        image_id: str,
        size: int,
        sources: Sequence[Location],
        opener: Opener,
        offset: int = 0,
        *,
        stop: int | None = None,
    ) -> None:
        self.used: list[Location] = []
        self._image_id = image_id
        self._size, self._end = size, size if stop is None else stop
        self._sources = sources
        self._opener = opener
        self._offset = offset

    def __iter__(self) -> Iterator[bytes]:
        """Non-empty chunks in order, `size - offset` bytes in all. Raises Unreachable when no source is left."""
        if self._offset == self._end:
            return
        last: SourceError | None = None
        for _ in range(_ROUNDS):
            began_at = self._offset
            for source in self._sources:
                try:
                    yield from self._read(source)
                except SourceError as error:
                    last = error
                    log.warning(
                        "image %s: source %s left at byte %d of %d: %s",
                        self._image_id,
                        redact(source.url),
                        self._offset,
                        self._end,
                        error,
                    )
                if self._offset == self._end:
                    return
            if self._offset == began_at:
                break
        why = f"; the last one: {last}" if last else ""
        raise Unreachable(f"no source gave bytes {self._offset} to {self._end}{why}") from last

    def _read(self, source: Location) -> Iterator[bytes]:
        with closing(self._open(source)) as body:
            if body.size is not None and body.size != self._size:
                raise WrongAnswer(f"holds {body.size} bytes, the image has {self._size}")
            for chunk in body:
                if source not in self.used:
                    self.used.append(source)
                part = chunk[: self._end - self._offset]
                self._offset += len(part)
                yield part
                if self._offset == self._end:
                    return
        raise Unreachable("the body ended early")

    def _open(self, source: Location) -> Body:
        if self._end == self._size:
            return self._opener(source, self._offset)
        return self._opener(source, self._offset, self._end)


def guarded(chunks: Iterator[bytes], digest: Digest, size: int, prefix: Iterable[bytes] = ()) -> Iterator[bytes]:
    """The chunks, except that the last block (`checksum.BLOCK` bytes) comes only once the digest of all agrees.

    `prefix` is what stands before the first chunk and is hashed, not yielded; `size` is bytes of both together.
    Hashing runs in a thread beside the reader, where there is more than a piece. Raises Corrupt in place of the last
    block, or when the length differs.
    """
    hasher: _Hasher | _HashedHere = (_Hasher if size > checksum.PIECE else _HashedHere)(digest.algorithm)
    with closing(hasher):
        yielded = 0
        for chunk in prefix:
            hasher.update(chunk)
            yielded += len(chunk)
        held: deque[bytes] = deque()
        length = yielded
        for chunk in chunks:
            hasher.update(chunk)
            held.append(chunk)
            length += len(chunk)
            while held and yielded + len(held[0]) <= size - checksum.BLOCK:
                yielded += len(held[0])
                yield held.popleft()
        if length != size:
            raise Corrupt(f"{length} bytes arrived, the image has {size}")
        if not checksum.agrees(digest, hasher.hexdigest()):
            raise Corrupt(f"{digest.algorithm} of all {size} bytes differs from the image's")
        yield from held


def continued(  # noqa: PLR0917
    chunks: Iterator[bytes],
    digest: Digest,
    size: int,
    kept: int,
    reread: Callable[[int, int], Iterable[bytes]],
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[bytes]:
    """Like `guarded`, for the rest of a file that has `kept` bytes: the chunks come at once, none waits for a hash.

    What was yielded must be in the file by the time the next chunk is asked for: all of the file is hashed beside, as
    `reread(start, stop)` gives it. Only the last block waits; `waiting` is called again and again meanwhile. Raises
    what `reread` raises, as well.
    """
    with closing(_FileHasher(digest.algorithm, reread, kept)) as hasher:
        written, length, held = kept, kept, deque[bytes]()
        for chunk in chunks:
            held.append(chunk)
            length += len(chunk)
            while held and written + len(held[0]) <= size - checksum.BLOCK:
                written += len(held[0])
                yield held.popleft()
                hasher.reach(written)
        if length != size:
            raise Corrupt(f"{length} bytes arrived, the image has {size}")
        if not checksum.agrees(digest, hasher.hexdigest(held, waiting)):
            raise Corrupt(f"{digest.algorithm} of all {size} bytes differs from the image's")
        yield from held


class _FileHasher:
    """The hash of a file from its first byte on, in a thread of its own, as far as the file is known to go."""

    def __init__(self, algorithm: str, reread: Callable[[int, int], Iterable[bytes]], length: int) -> None:
        self._hash, self._reread = checksum.start(algorithm), reread
        self._changed = threading.Condition()
        self._length, self._is_all, self._is_over = length, False, False
        self._failure: ReplicaError | None = None
        self._thread = threading.Thread(target=self._run, name="replica-hash", daemon=True)
        self._thread.start()

    def reach(self, length: int) -> None:
        """The file has so many bytes by now. Raises what reading it raised."""
        with self._changed:
            self._length = length
            self._changed.notify()
        self._check()

    def hexdigest(self, rest: Iterable[bytes], waiting: Callable[[], None]) -> str:
        """Of the whole file and of these bytes behind it."""
        with self._changed:
            self._is_all = True
            self._changed.notify()
        while self._thread.is_alive():
            self._thread.join(_LIFE_SIGN)
            waiting()
        self._check()
        for chunk in rest:
            self._hash.update(chunk)
        return self._hash.hexdigest()

    def close(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        position = 0
        try:
            while (stop := self._next(position)) is not None:
                for chunk in self._reread(position, stop):
                    self._hash.update(chunk)
                    position += len(chunk)
                    if self._is_over:
                        return
        except ReplicaError as error:
            self._failure = error

    def _next(self, position: int) -> int | None:
        """How far to read now; None: no further."""
        with self._changed:
            self._changed.wait_for(lambda: self._length > position or self._is_all or self._is_over)
            return self._length if self._length > position and not self._is_over else None


class _HashedHere:
    """A running hash in the caller's thread: one piece is sooner hashed than a thread begun."""

    def __init__(self, algorithm: str) -> None:
        hash_ = checksum.start(algorithm)
        self.update, self.hexdigest = hash_.update, hash_.hexdigest

    def close(self) -> None:
        """Nothing is held."""


class _Hasher:
    """A running hash in a thread of its own, 32 pieces behind at most."""

    def __init__(self, algorithm: str) -> None:
        self._hash = checksum.start(algorithm)
        # Two of these, one of pieces and one of free places, cost a tenth of a Queue with a size.
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._places: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(_BEHIND):
            self._places.put(None)
        self._thread = threading.Thread(target=self._run, name="replica-hash", daemon=True)
        self._thread.start()

    def update(self, data: bytes) -> None:
        self._places.get()
        self._pieces.put(data)

    def hexdigest(self) -> str:
        self.close()
        return self._hash.hexdigest()

    def close(self) -> None:
        if self._thread.is_alive():
            self._pieces.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (data := self._pieces.get()) is not None:
            self._hash.update(data)
            self._places.put(None)
