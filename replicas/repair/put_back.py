"""Puts an image back into a store that has nothing of it, from intact cached copies: object first, then its row.

Only for an image whose every durable copy is damaged or gone. The object gets the name that Glance would give it, and
never takes the place of another: one that is there and is the image already gets its row, any other is left alone.

Killed while it is written: nothing that has the object's name (`writers`). Killed between object and row: the object is
there, `replica audit` lists it as dark, and the next run finds it intact and adds the row.
"""

import logging
from collections.abc import Callable, Sequence

from oslo_config import cfg

from ..catalogue.images import LIVE, Catalogue
from ..errors import ConfigError, Refused
from ..location import redact, where
from ..model import STORE_KEY, Image, Location, Result
from ..stores import configured, kinds
from ..stores.contract import Configuration, Store, Written
from ..stores.sources import Sources
from ..stores.writers import Writers
from ..verdict import Evidence, Verdict
from ..verify.probe import probe
from .rewrite import OriginalBytes

log = logging.getLogger(__name__)


class PutBack:
    """Puts images into one store; raises ConfigError when there is none such. `keep` gets results, for the ledger."""

    def __init__(
        self,
        catalogue: Catalogue,
        sources: Sources,
        writers: Writers,
        store: str,
        *,
        keep: Callable[[list[Result]], None],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._catalogue, self._sources, self._writers = catalogue, sources, writers
        self._keep, self._progress = keep, progress
        self._store = _store(store)

    def plan(self, image: Image, results: Sequence[Result]) -> Location:
        """Where it would go. `results`: a full one of each copy, just made. Raises Refused, Unsupported."""
        if image.status not in LIVE or image.digest is None or image.size is None:
            raise Refused(f"image {image.id} is {image.status}, or has no digest: no copy of it can be proven")
        durable = [result for result in results if not result.location.is_cached]
        if any(result.verdict is Verdict.INTACT for result in durable):
            raise Refused(f"image {image.id} has an intact durable copy; there is nothing to put back")
        if any(result.verdict.is_unknown for result in durable):
            raise Refused(f"image {image.id}: a store could not be asked; see to that first: replica verify {image.id}")
        if not self._intact(results):
            raise Refused(f"image {image.id}: no copy is intact; restore the image from where it came from")
        place = Location(image.id, self._url(image), self._metadata())
        if any(where(location.url) == where(place.url) for location in image.locations):
            raise Refused(f"image {image.id}: the store has a location of it already: replica repair {image.id} --yes")
        return place

    def act(self, image: Image, place: Location, results: Sequence[Result]) -> Result:
        """The image has an intact location there; the verification that proves it. Else an error, and no row was added.

        Raises the children of SourceError, Unwritable, Refused, CatalogueError.
        """
        before, restored = probe(self._sources, image, place, Evidence.FULL), None
        if before.verdict is Verdict.MISSING:
            restored = self._write(image, place, self._intact(results))
        elif before.verdict.is_unknown:
            raise Refused(
                f"image {image.id}: nothing was written, {redact(place.url)} could not be checked: {before.detail}; "
                "make sure that the store answers and that its bucket, container or folder is there"
            )
        elif before.verdict is not Verdict.INTACT:
            raise Refused(
                f"image {image.id}: {before.verdict} at {redact(place.url)}: {before.detail}; it is never overwritten: "
                "inspect it, and remove it by hand if nobody needs it"
            )
        after = probe(self._sources, image, place, Evidence.FULL) if restored else before
        self._register(image, place, after, restored)
        self._keep([after])
        return after

    def _write(self, image: Image, place: Location, intact: Sequence[Location]) -> Written:
        log.info("image %s: writing %s", image.id, redact(place.url))
        original = OriginalBytes(image, intact, self._sources, self._progress)
        return self._writers.of(place).rewrite(place.url, original, lambda: self._must_be_wanted(image))

    def _register(self, image: Image, place: Location, after: Result, restored: Written | None) -> None:
        """The row, when what was written reads back right; else nothing is left of it."""
        try:
            if after.verdict is not Verdict.INTACT:
                raise Refused(f"image {image.id}: what was written reads back {after.verdict}: {after.detail}")
            self._must_be_wanted(image)
            self._catalogue.add(image.id, place.url, place.metadata, digest=image.digest)
        except Refused:
            if restored is not None:
                restored.remove()
            raise
        if restored is not None:
            restored.keep()
        log.info("image %s: back in store %s", image.id, self._store.name)
        self._put_last(image)

    def _put_last(self, image: Image) -> None:
        """Cached rows come after the new one: of equal stores Glance shows, and clones from, the one that came first.

        Killed in between: the janitor of the host adds its row again.
        """
        for location in image.cached:
            if location.row is not None and self._catalogue.withdraw(location):
                self._catalogue.add(location.image_id, location.url, location.metadata)

    def _must_be_wanted(self, image: Image) -> None:
        now = self._catalogue.decide(image.id, lambda locked: locked.image)
        if now.status not in LIVE or (now.digest, now.size) != (image.digest, image.size):
            raise Refused(f"image {image.id} is {now.status}, or has other bytes by now; nothing was added")

    def _intact(self, results: Sequence[Result]) -> list[Location]:
        found = [result for result in results if result.verdict is Verdict.INTACT and result.evidence is Evidence.FULL]
        return [result.location for result in found]

    def _url(self, image: Image) -> str:
        config = Configuration(cfg.CONF, configured.stores(cfg.CONF))
        return kinds.load(self._store.kind).url(self._store, image, config)

    def _metadata(self) -> dict[str, object]:
        return {} if self._store.id is None else {STORE_KEY: self._store.id}


def _store(name: str) -> Store:
    stores = [store for store in configured.stores(cfg.CONF) if store.kind != "http"]
    for store in stores:
        if name == store.name:
            return store
    known = ", ".join(store.name for store in stores)
    raise ConfigError(f"{name} is no store of glance-api.conf that images can be put into; there are: {known}")
