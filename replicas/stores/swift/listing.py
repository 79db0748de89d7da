"""The containers of a Swift store, page by page.

A segment belongs to its object by its name, as Glance and `replica repair` name them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from oslo_config import cfg

from ...errors import Absent, SourceError, Unsupported, WrongAnswer
from ...model import STORE_KEY, Location
from ..body import Limits
from ..configured import group_options
from ..contract import Listed
from ..http.answers import Target
from ..object_names import segment_of
from . import reader as swift_reader
from . import segments
from .segments import Beside

_SPARE = "a segment that its image's object does not use (any more)"


class Listing:
    """The objects of a store with the credentials of its options, named CONTAINER/OBJECT."""

    def __init__(self, conf: cfg.ConfigOpts, store: str | None, limits: Limits, page: int = 1000) -> None:
        from glance_store._drivers import swift as driver

        options = group_options(conf, store, driver.Store.OPTIONS)
        self.place, self._store, self._limit = f"store:{store or 'swift'}", store, page
        self._reader = swift_reader.Reader(conf, store, limits)
        self._container = options.swift_store_container
        self._several = bool(options.swift_store_multiple_containers_seed)  # NAME_PART-OF-THE-IMAGE'S-ID
        self._of_callers = options.swift_store_multi_tenant
        self._reference = options.default_swift_reference
        self.parts = (f"{self._container}_" if self._several else f"{self._container}/",)

    def name_of(self, location: Location) -> str | None:
        """Its container and object, where the URL is of this kind and names a container of this store."""
        if not location.url.startswith("swift"):
            return None
        try:
            path = self._reader.path(location.url)
        except SourceError:
            return None
        return path if path.startswith(self.parts) else None

    def location_of(self, entry: Listed) -> Location:
        """By the name that the store's options give its account: no password is in it."""
        metadata = {STORE_KEY: self._store} if self._store else {}
        return Location(entry.image_id or "", self._url(entry.name), metadata)

    def entries(self) -> Iterator[Listed]:
        """Every object of every container. Any page that does not come ends it."""
        if self._of_callers:
            raise Unsupported(f"{self.place}: with swift_store_multi_tenant the containers are the callers' own")
        for container in self._containers():
            found = [_entry(container, page) for page in self._pages(quote(container))]
            spare = set(self._spare(found))
            yield from (replace(listed, spare=_SPARE) if listed.name in spare else listed for listed in found)

    def remove(self, entry: Listed) -> bool:
        """The object is gone, unless it was written again since it was listed."""

        def work(target: Target, _: Beside) -> bool:
            written = float(self._reader.wire.head(target).get("X-Timestamp", "nan"))
            if entry.modified is None or not abs(written - entry.modified.timestamp()) < 1:
                return False
            self._reader.wire.delete(target)
            return True

        try:
            return self._reader.ask(self._url(entry.name), work)
        except Absent:
            return False

    def _spare(self, found: Sequence[Listed]) -> Iterator[str]:
        """Segments that the object of their name does not use: what a repair, or an upload, left that was killed.

        The object is asked when the listing shows that there may be such: it is plain, or has segments of two kinds.
        """
        sizes, groups = {listed.name: listed.size for listed in found}, dict[str, list[str]]()
        for listed in found:
            if (whole := segment_of(listed.name)) in sizes:
                groups.setdefault(whole or "", []).append(listed.name)
        for whole, parts in groups.items():
            if sizes[whole] or len({part.rpartition("-")[0] for part in parts}) > 1:
                used = self._used(whole)
                yield from (part for part in parts if used is not None and not (used and part.startswith(used)))

    def _used(self, name: str) -> str | None:
        """What the names of an object's segments begin with, "" of a plain object; None: its list would have to say."""
        try:
            headers = self._reader.ask(self._url(name), lambda target, _: self._reader.wire.head(target))
        except Absent:
            return None
        if headers.get("X-Static-Large-Object", "").lower() == "true":
            return None
        return unquote(headers.get("X-Object-Manifest", ""))

    def _containers(self) -> list[str]:
        if not self._several:
            return [self._container]
        found = self._pages("", f"&prefix={quote(self._container, safe='')}_")
        return [self._container, *(str(entry.get("name")) for entry in found)]

    def _pages(self, path: str, more: str = "") -> Iterator[Mapping[str, Any]]:
        """The entries of a container, or of the account, to an empty page; their names must go up."""
        marker = ""
        while found := self._page(f"{path}?format=json&limit={self._limit}&marker={quote(marker, safe='')}{more}"):
            for entry in found:
                name = entry.get("name")
                if not isinstance(name, str) or name <= marker:
                    raise WrongAnswer(f"{self.place}: a listing out of order after {marker!r}")
                marker = name
                yield entry

    def _page(self, query: str) -> list[Mapping[str, Any]]:
        url = self._url(f"{self._container}/-")
        return self._reader.ask(url, lambda _, beside: segments.document(self._reader.wire, beside(query)))

    def _url(self, name: str) -> str:
        return f"swift+config://{self._reference}/{name}"


def _entry(container: str, entry: Mapping[str, Any]) -> Listed:
    size, modified = entry.get("bytes"), entry.get("last_modified")
    try:
        moment = datetime.fromisoformat(str(modified)).replace(tzinfo=UTC)
    except ValueError:
        moment = None
    return Listed(f"{container}/{entry['name']}", size if isinstance(size, int) else None, moment)
