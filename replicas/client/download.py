"""The client side of a download: sources in order, one file, verified before anybody sees it.

A first pass takes the bytes from the best source and, when that breaks, goes on at the same offset from the next. When
the whole has the wrong digest, the file is thrown away and each remaining source is tried alone, from the start, until
one is good; the good bytes then tell which source had the bad ones (never a second guess, never a mixture kept:
CVE-2021-22922). Nothing here holds a token: `fallback` does, and it knows one address only (CVE-2021-22923).
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import Denied, Refused, ReplicaError, SourceError, Unreachable, WrongAnswer
from ..location import redact
from ..model import Digest
from ..stores.body import Body, Limits
from ..stores.http import reader as http_reader
from .choose import Choice, Health, Here, order
from .document import Document, Replica
from .download_file import Part

log = logging.getLogger(__name__)

SHOWN = 8  # sources named in one error
GLANCE = "Glance itself"
MOST_SOURCES = 32  # asked at most; the best come first
TRIES = 3  # of one source in one pass, each after progress

Progress = Callable[[int, int | None, str], None]  # bytes so far, bytes in all if known, the source in words


class Reader(Protocol):
    """What reads a URL (`sources.web.Reader`)."""

    def open(self, url: str, offset: int = 0) -> Body:
        """The bytes from `offset` on; raises SourceError."""


@dataclass(frozen=True)
class Attempt:
    """One source asked once: the bytes from `start` up to `end` are its own."""

    source: str
    start: int
    end: int
    error: str | None = None


@dataclass(frozen=True)
class DownloadReport:
    """How a download went."""

    target: Path
    size: int  # bytes
    digest: Digest | None  # None: nothing to hold the bytes against
    seconds: float
    attempts: tuple[Attempt, ...] = ()
    guilty: tuple[str, ...] = ()  # sources known to have given wrong bytes
    suspects: tuple[str, ...] = ()  # had a part in wrong bytes, and nothing tells whose part it was

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source that was asked, in order, once."""
        return tuple(dict.fromkeys(attempt.source for attempt in self.attempts))


class DownloadError(ReplicaError):
    """No file was made; `report` says what was tried."""

    def __init__(self, text: str, report: DownloadReport) -> None:
        super().__init__(text)
        self.report = report


class OutOfReach(DownloadError):
    """No source gave all bytes. Says nothing about the bytes."""


class NoneIntact(DownloadError):
    """Bytes came, and they are not the image's."""


def arrange(replicas: Sequence[Replica], here: Here, seed: int | str) -> list[Choice[Replica]]:
    """The replicas of a document, best first for a caller who is `here`, with the reasons."""
    health = {
        replica.url: Health(
            verdict=replica.state.verdict if replica.state else None,
            verdict_age_seconds=replica.state.age_seconds if replica.state else None,
            heartbeat_age_seconds=replica.heartbeat_age_seconds,
        )
        for replica in replicas
    }
    return order(replicas, here, health, seed)


@dataclass(eq=False)
class _Source:
    """One place to read from; a refreshed document may give it another URL. Without one it is Glance itself."""

    name: str
    url: str | None = None
    tries: int = 0
    gone: bool = False

    @property
    def place(self) -> str:
        """The URL without signature and credentials."""
        return _place(self.url or "")


def fetch(
    document: Document,
    target: Path,
    *,
    reader: Reader | None = None,
    fallback: Callable[[int], Body] | None = None,
    refresh: Callable[[], Document] | None = None,
    digest: Digest | None = None,
    limits: Limits | None = None,
    unverified: bool = False,
    progress: Progress | None = None,
) -> DownloadReport:
    """The image is at `target`, complete, with the right digest and on disk; or nothing is, and an error says why.

    `document` gives the sources in order (`parse` it, or ask Glance); `fallback` opens Glance's own download at an
    offset, last of all; `refresh` gives a new document once, when a signature has run out. `digest` takes precedence
    over the document's; `limits` are for the reader made here. Raises OutOfReach, NoneIntact, TargetError, Refused (no
    digest and not `unverified`) and ConfigError (the target is no place for a file).
    """
    wanted = digest or document.digest
    if wanted is None and not unverified:
        raise Refused(f"image {document.image_id} has no digest to hold its bytes against; ask for it --unverified")
    reader = reader or http_reader.Reader(limits)
    flow = _Flow(document, reader=reader, fallback=fallback, refresh=refresh, progress=progress)
    with Part(target, wanted.algorithm if wanted else None, document.size) as part:
        report = flow.run(part, wanted)
        part.commit()
    return report


class _Flow:
    """One download; see the module for the two passes."""

    def __init__(
        self,
        document: Document,
        *,
        reader: Reader,
        fallback: Callable[[int], Body] | None,
        refresh: Callable[[], Document] | None,
        progress: Progress | None,
    ) -> None:
        self.image_id, self.progress = document.image_id, progress
        self.reader, self.fallback, self.refresh = reader, fallback, refresh
        self.sources = [_Source(_name(replica), replica.url) for replica in document.readable[:MOST_SOURCES]]
        if fallback:
            self.sources.append(_Source(GLANCE))
        self.began = time.monotonic()
        self.attempts: list[tuple[_Source, Attempt]] = []
        self.guilty: list[_Source] = []
        self.suspects: list[_Source] = []

    def run(self, part: Part, wanted: Digest | None) -> DownloadReport:
        """`part` holds the image when this returns."""
        if not self._gather(part, self.sources):
            raise OutOfReach(self._failure("no source gave all its bytes"), self._report(part, wanted))
        if wanted and not part.agrees(wanted):
            self._one_by_one(part, wanted)
        return self._report(part, wanted)

    def _gather(self, part: Part, sources: Sequence[_Source]) -> bool:
        """Whether all bytes are there, from these sources in turn; one that broke midway comes again at the end."""
        queue = deque(sources)
        while queue and part.offset != part.size:
            source, start = queue.popleft(), part.offset
            error = self._read(part, source)
            if error is None and part.size is None:
                return True
            if isinstance(error, Denied) and self._refreshed(source):
                queue.appendleft(source)
            elif part.offset > start and source.tries < TRIES and not isinstance(error, WrongAnswer):
                queue.append(source)
            else:
                source.gone = part.offset != part.size
        return part.offset == part.size

    def _read(self, part: Part, source: _Source) -> SourceError | None:
        """`part` has what this source adds to it; the error that ended it early, if one did."""
        start, trouble = part.offset, None
        source.tries += 1
        try:
            with self._open(source, start) as body:
                if part.size is not None and body.size not in (None, part.size):
                    raise WrongAnswer(f"it holds {body.size} bytes, the image has {part.size}")
                for chunk in body:
                    part.add(chunk)
                    if self.progress:
                        self.progress(part.offset, part.size, source.name)
            if part.size is not None and part.offset < part.size:
                raise Unreachable(f"it ended after {part.offset} of {part.size} bytes")
        except SourceError as error:
            trouble = error
            log.info("image %s: %s failed at byte %d: %s", self.image_id, source.name, part.offset, error)
        words = str(trouble).removeprefix(f"{redact(source.url or '')}: ") if trouble else None
        self.attempts.append((source, Attempt(source.name, start, part.offset, words)))
        return trouble

    def _open(self, source: _Source, offset: int) -> Body:
        if source.url is not None:
            return self.reader.open(source.url, offset)
        assert self.fallback is not None
        return self.fallback(offset)

    def _refreshed(self, source: _Source) -> bool:
        """Whether a new document, asked for once, brings a new URL for this source; the others get theirs as well."""
        refresh, self.refresh, denied = self.refresh, None, source.url
        if refresh is None:
            return False
        try:
            fresh = {_place(replica.url): replica.url for replica in refresh().readable}
        except ReplicaError as error:
            log.info("image %s: no new document: %s", self.image_id, error)
            return False
        for known in self.sources:
            known.url = fresh.get(known.place, known.url)
        return source.url != denied

    def _one_by_one(self, part: Part, wanted: Digest) -> None:
        """`part` holds good bytes of a single source, or NoneIntact is raised; whoever gave bad ones is named."""
        pieces = [
            (giver, at.start, at.end, part.fingerprint(at.start, at.end))
            for giver, at in self.attempts
            if at.end > at.start
        ]
        mixed = list(dict.fromkeys(giver for giver, *_ in pieces))
        if len(mixed) == 1:
            self._condemn(mixed[0])
        rest = [source for source in self.sources if source not in mixed and not source.gone]
        for source in rest + (mixed if len(mixed) > 1 else []):
            part.restart()
            source.tries = 0
            if not self._gather(part, [source]):
                continue
            if part.agrees(wanted):
                for giver, start, end, bad in pieces:
                    if part.fingerprint(start, end) != bad:
                        self._condemn(giver)
                return
            self._condemn(source)
        self.suspects = [source for source in mixed if source not in self.guilty]
        raise NoneIntact(self._failure(f"no source has bytes of its {wanted.algorithm}"), self._report(part, wanted))

    def _condemn(self, source: _Source) -> None:
        if source not in self.guilty:
            self.guilty.append(source)
            log.info("image %s: %s gave bytes that are not the image's", self.image_id, source.name)

    def _report(self, part: Part, wanted: Digest | None) -> DownloadReport:
        return DownloadReport(
            target=part.target,
            size=part.offset,
            digest=wanted,
            seconds=time.monotonic() - self.began,
            attempts=tuple(at for _, at in self.attempts),
            guilty=tuple(source.name for source in self.guilty),
            suspects=tuple(suspect.name for suspect in self.suspects),
        )

    def _failure(self, what: str) -> str:
        """One line: every source with what was wrong with it."""
        said = {source.name: at.error for source, at in self.attempts if at.error}
        said |= {source.name: "gave wrong bytes" for source in self.guilty}
        said |= {suspect.name: "had a part in wrong bytes" for suspect in self.suspects}
        each = "; ".join(f"{name}: {words}" for name, words in list(said.items())[:SHOWN])
        each += f"; and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
        return f"image {self.image_id}: {what} ({each or 'there is no source a client can read'})"


def _place(url: str) -> str:
    return redact(url).partition("?")[0]


def _name(replica: Replica) -> str:
    """A source in words that are safe to show: the host, and the URL without its signature."""
    return f"{replica.host} ({_place(replica.url)})" if replica.host else _place(replica.url)
