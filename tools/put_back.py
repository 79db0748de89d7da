"""`replica repair --to-store`: images that no store has, written into one from their cached copies."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from glance_replicas.errors import CatalogueError, LedgerError, ReplicaError
from glance_replicas.location import redact
from glance_replicas.model import Image
from glance_replicas.verdict import Evidence

from ..verify.worker_pool import probe_all
from .command import DAMAGED, UNKNOWN, OnHost
from .output.cells import Text
from .output.text import short

if TYPE_CHECKING:
    from glance_replicas.model import Result

COLUMNS = ("Image", "Name", "Action", "Store", "From", "URL")


class PuttingBack:
    """Plans and does it, one image after the other; `lines` is what stands below the table."""

    def __init__(self, command: OnHost, store: str, workers: int, progress: Callable[[int], None]) -> None:
        from glance_replicas.repair import put_back
        from glance_replicas.stores import writers

        self._command, self._store, self._workers = command, store, workers
        places = writers.from_settings(command.settings)
        self._work = put_back.PutBack(
            *(command.catalogue, command.sources, places, store), keep=command.known.record, progress=progress
        )
        self.lines: list[str] = []

    def one(self, image: Image, is_meant: bool) -> tuple[Any, ...]:
        """The row of one image; with `is_meant` it is done."""
        results = self._look(image)
        try:
            place = self._work.plan(image, results)
            action = "put back" if is_meant else "put"
            if is_meant:
                self._work.act(image, place, results)
                self._say(f"image {image.id}: intact in store {self._store}, read back in full")
            else:
                self._command.worsen(DAMAGED)
                self._say(f"image {image.id}: nothing was done, add --yes to put it into store {self._store}")
            return self._row(image, action, redact(place.url), results)
        except (CatalogueError, LedgerError):
            raise
        except ReplicaError as error:
            self._say(str(error))
            self._command.worsen(UNKNOWN if any(result.verdict.is_unknown for result in results) else DAMAGED)
            return self._row(image, "refused", None, results)

    def _look(self, image: Image) -> "list[Result]":
        """At all copies, in full, just now."""
        items = [(image, location, Evidence.FULL) for location in image.locations]
        results = [result for _, result in probe_all(self._command.sources, items, self._workers)]
        self._command.known.record(results)
        return results

    def _say(self, text: str) -> None:
        self.lines.append(short(text))

    def _row(self, image: Image, action: str, url: str | None, results: "list[Result]") -> tuple[Any, ...]:
        hosts = [
            result.location.host for result in results if not result.verdict.is_damage and not result.verdict.is_unknown
        ]
        return (image.id, Text(image.name), action, Text(self._store), Text(hosts[0] if hosts else None), Text(url))
