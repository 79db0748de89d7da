"""Writes Swift objects anew, in place, with the credentials that Glance itself would use.

A plain object is one PUT: Swift takes it when its last byte has come, and keeps the one before until then. Of a large
object those segments are written again whose bytes are not the image's; each PUT carries the md5 that the proven image
has there. When that cannot make it whole, all goes anew: as a plain object, or as segments under other names
(NAME.a-00001, or NAME.b-00001 when the damaged ones have the first), before which one PUT then sets the manifest.

A kill leaves a plain object as it was; some segments right and others not yet, which the next repair finds; or segments
under other names that no manifest names, which the next one that needs the name begins anew.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from oslo_config import cfg

from ... import checksum
from ...errors import Absent, ReplicaError
from .. import pieces
from ..body import Limits
from ..configured import group_options
from ..contract import Original
from ..http.answers import Target
from ..http.wire import Wire
from ..pieces import Cutter, Piece, gate
from . import reader as swift_reader
from . import segments
from .segments import Beside, Segment

log = logging.getLogger(__name__)

_MB = 1000 * 1024  # as glance_store counts


class Writer:
    """Writes the objects of one Swift store."""

    schemes = swift_reader.Reader.schemes

    def __init__(self, conf: cfg.ConfigOpts, store: str | None, limits: Limits) -> None:
        from glance_store._drivers import swift as driver

        options = group_options(conf, store, driver.Store.OPTIONS)
        self.store = store
        # A block has to be sent within the time of a connection (urllib3), and Swift may take its time over it.
        self._reader = swift_reader.Reader(conf, store, replace(limits, connect=limits.stall))
        self._largest = options.swift_store_large_object_size * _MB
        self._step = options.swift_store_large_object_chunk_size * _MB

    def rewrite(self, url: str, original: Original, ready: Callable[[], None]) -> "_Written":
        """As `contract.Writer.rewrite`; of a large object the segments that are not right, one by one."""
        path = self._reader.path(url)

        def work(target: Target, beside: Beside) -> _Written:
            return _Object(self._reader.wire, target, beside, path).rewrite(original, ready, self._largest, self._step)

        return self._reader.ask(url, work)

    def owns(self, url: str) -> bool:
        """As `swift.Reader.owns`."""
        return self._reader.owns(url)


@dataclass(frozen=True)
class _Written:
    object: "_Object"
    written: tuple[str, ...]  # paths
    replaced: tuple[str, ...]  # paths that nothing names any more

    def keep(self) -> None:
        """The segments of the damaged object are gone."""
        self.object.delete(self.replaced)

    def remove(self) -> None:
        """The object and its segments are gone."""
        self.object.delete(self.written)


@dataclass(frozen=True)
class _Object:
    """One object, and what is beside it in its account."""

    wire: Wire
    target: Target
    beside: Beside
    path: str  # container/name

    def rewrite(self, original: Original, ready: Callable[[], None], largest: int, step: int) -> _Written:
        headers = self._head()
        manifest = unquote(headers.get("X-Object-Manifest", "")).strip("/")
        listed = self._listed(headers, manifest)
        plan = segments.wanted(listed, original.size, manifest or None) if listed else None
        written = self._mend(plan, original, ready) if plan else []
        if written:
            return _Written(self, (self.path, *written), ())
        old = tuple(segment.path for segment in listed)
        if original.size <= largest:
            etag = {"ETag": original.md5} if original.md5 else {}
            self.wire.put(self.target, gate(original.whole(), ready), original.size, etag)
            return _Written(self, (self.path,), old)
        prefix = f"{self.path}.b-" if manifest == f"{self.path}.a-" else f"{self.path}.a-"
        return _Written(self, (self.path, *self._anew(prefix, original, ready, step)), old)

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.wire.delete(self._at(path))

    def _head(self) -> Mapping[str, str]:
        try:
            return self.wire.head(self.target)
        except Absent:
            segments.must_be_swift(self.wire, self._at(self.path.partition("/")[0]))
            return {}

    def _listed(self, headers: Mapping[str, str], manifest: str) -> list[Segment]:
        """The segments, as its list has them; none of a plain object, and of a form that Glance never writes."""
        if headers.get("X-Static-Large-Object", "").lower() == "true":
            return segments.static(self.wire, self.target) or []
        return list(segments.dynamic(self.wire, self.beside, manifest)) if manifest else []

    def _mend(self, plan: Sequence[Piece], original: Original, ready: Callable[[], None]) -> list[str]:
        """Every segment is right; the paths of those that were not.

        Nothing is written before the whole image was read and proven: from it come the digests of the segments.
        """
        cutter = Cutter(original.whole())
        digests = [checksum.of(cutter.take(piece.size), "md5")[0].value for piece in plan]
        wrong = [(segment, md5) for segment, md5 in zip(plan, digests, strict=True) if not self._is_right(segment, md5)]
        for segment, md5 in wrong:
            ready()
            self.wire.put(
                self._at(segment.path), original.part(segment.offset, segment.size), segment.size, {"ETag": md5}
            )
            log.info("%s: segment %s written anew", self.target.shown, segment.path)
        return [segment.path for segment, _ in wrong]

    def _is_right(self, piece: Piece, md5: str) -> bool:
        """Read, not asked: what Swift says of a segment may be older than its damage."""
        try:
            with self.wire.open(self._at(piece.path)) as body:
                return checksum.of(body, "md5")[0].value == md5
        except Absent:
            return False

    def _anew(self, prefix: str, original: Original, ready: Callable[[], None], step: int) -> list[str]:
        """The manifest stands before new segments; their paths."""
        self.delete([segment.path for segment in segments.dynamic(self.wire, self.beside, prefix)])  # what a kill left
        plan, cutter = pieces.anew(prefix, original.size, step), Cutter(original.whole())
        paths = [piece.path for piece in plan]
        try:
            for piece in plan:
                self.wire.put(self._at(piece.path), cutter.take(piece.size), piece.size, {})
            ready()
        except ReplicaError:
            with contextlib.suppress(ReplicaError):
                self.delete(paths)
            raise
        self.wire.put(self.target, b"", 0, {"X-Object-Manifest": quote(prefix)})
        return paths

    def _at(self, path: str) -> Target:
        return self.beside(quote(path))
