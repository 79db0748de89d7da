"""A host reads its own files when it is asked to (`verify_requests`), so that a verification costs no network."""

import logging
import threading
import time
from collections.abc import Callable

from ..cache import Cache
from ..catalogue.images import Catalogue
from ..errors import ReplicaError
from ..ledger.host_registry import HostRegistry
from ..ledger.verify_requests import WITHDRAWN, VerifyRequest, VerifyRequests
from ..location import is_replica_of
from ..model import Image, Location, Result
from ..removal import withheld
from ..settings import Settings
from ..verdict import Evidence, Verdict
from .scrub import Scrubber

log = logging.getLogger(__name__)

_RENEW_SECONDS = 2.0
_POLL_SECONDS = 0.3  # while requests come
_IDLE_SECONDS = 10.0  # without a request, until the janitor's own interval is enough again


class VerifyWorker:
    """One host's. `keep_alive` is called between blocks; what it raises ends the reading, and the request stays.

    `scrubber` makes one that calls what it is given between blocks.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        cache: Cache,
        catalogue: Catalogue,
        hosts: HostRegistry,
        requests: VerifyRequests,
        scrubber: Callable[[Callable[[], None]], Scrubber],
        keep_alive: Callable[[], None],
    ) -> None:
        self._settings, self._cache, self._catalogue = settings, cache, catalogue
        self._hosts, self._requests, self._keep_alive = hosts, requests, keep_alive
        self._scrubber = scrubber(self._renew)
        self._thread: threading.Thread | None = None
        self._reading, self._renewed = "", 0.0

    def step(self) -> None:
        """If anything was asked it is being answered, in a thread of its own."""
        if self._thread is not None and self._thread.is_alive():
            return
        if self._due():
            self._thread = threading.Thread(target=self._run, name="replica-verify-worker", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """What was asked is answered. Raises ReplicaError."""
        while due := self._due():
            for image_id in due:
                self._answer(image_id)

    def _run(self) -> None:
        idle_at = time.monotonic() + _IDLE_SECONDS
        try:
            while time.monotonic() < idle_at:
                for image_id in self._due():
                    self._answer(image_id)
                    idle_at = time.monotonic() + _IDLE_SECONDS
                self._keep_alive()
                time.sleep(_POLL_SECONDS)
        except ReplicaError as error:
            log.warning("verifications asked of this host: %s", error)
        except Exception:  # outermost edge of a thread
            log.exception("verifications asked of this host")

    def _due(self) -> list[VerifyRequest]:
        return self._hosts.ask("verify requests", lambda: self._requests.due(self._settings.host_name), [])

    def _answer(self, asked: VerifyRequest) -> None:
        """Killed in between: the request stands, and the next start answers it.

        Without a result it is just over: whoever asked then reads over the network.
        """
        host = self._settings.host_name
        self._reading, self._renewed = asked.image_id, 0.0
        began = time.monotonic()
        found = self._look(asked)
        result = None
        if found is not None:
            location, verdict, detail, size = found
            text = f"read by host {host} itself: {detail}"
            result = Result(location, verdict, Evidence.FULL, text, seconds=time.monotonic() - began, size=size)
        self._requests.end(asked.image_id, host, result)
        log.info("image %s: read as asked: %s", asked.image_id, result.verdict if result else "no registered copy")

    def _look(self, asked: VerifyRequest) -> tuple[Location, Verdict, str, int | None] | None:
        """The registration is looked up before the file: reading a wrong file withdraws it."""
        image = self._catalogue.active(asked.image_id)
        location = self._own(image) if image else None
        if image is None or location is None or image.digest is None:
            return None
        if not self._cache.complete.exists(image.id):
            return self._absent(image, location)
        verdict = self._scrubber.verify(image.id, asked.rate or 0)
        if verdict is Verdict.INTACT:
            return location, verdict, f"{image.digest.algorithm} and {image.size} bytes as expected", image.size
        if verdict is Verdict.CORRUPT:
            return location, verdict, f"the digest differs; {WITHDRAWN}", None
        if verdict in withheld.WORDS:
            return location, verdict, withheld.WORDS[verdict], None
        return None

    def _absent(self, image: Image, location: Location) -> tuple[Location, Verdict, str, int | None] | None:
        """No file; unless it was evicted just now, row first, or the folder may not be mounted."""
        if self._own(self._catalogue.active(image.id)) is None:
            return None
        if next(iter(self._cache.complete.entries()), None) is None:
            return location, Verdict.UNREACHABLE, "its cache directory is empty; is it mounted?", None
        return location, Verdict.MISSING, "it has no such file", None

    def _own(self, image: Image | None) -> Location | None:
        settings = self._settings
        if image is None or settings.host_url is None:
            return None
        own = (
            location
            for location in image.cached
            if is_replica_of(location, settings.host_name, settings.host_url or "")
        )
        return next(own, None)

    def _renew(self) -> None:
        """Called between blocks. A ledger that is away does not end the reading."""
        self._keep_alive()
        if time.monotonic() - self._renewed > _RENEW_SECONDS:
            self._renewed = time.monotonic()
            host = self._settings.host_name
            self._hosts.ask("verify requests", lambda: self._requests.renew(self._reading, host), None)
