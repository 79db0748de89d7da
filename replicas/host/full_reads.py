"""What follows once every byte of an image was read: a verdict; of this host's own file a row, and its pin."""

from datetime import UTC, datetime

from ..crash_points import crash_points
from ..ledger.host_registry import HostRegistry
from ..ledger.ledger import Ledger
from ..model import Image, Location, Result
from ..verdict import Evidence, Verdict
from .pin_sync import PinSync
from .registration import Registration


class FullReads:
    """One host's; thread-safe. Without a ledger nothing is recorded."""

    def __init__(
        self, here: str, hosts: HostRegistry, ledger: Ledger, registration: Registration, pin_sync: PinSync
    ) -> None:
        self._here, self._hosts, self._ledger = here, hosts, ledger
        self._registration, self._pin_sync = registration, pin_sync

    @crash_points
    def verified(self, image: Image) -> bool:
        """Every byte of this host's complete file was read just now, and agreed: a verdict, and whether a row came."""
        is_new = self._registration.register(image)
        url = self._registration.own_url(image.id)
        if url is not None:
            self.record(image, Location(image.id, url, self._registration.metadata()), Verdict.INTACT)
        self._pin_sync.try_pin(image.id)
        return is_new

    @crash_points
    def record(self, image: Image, location: Location, verdict: Verdict) -> None:
        """A fill reads every byte: what it found is a verdict like any other."""
        detail = f"when host {self._here} filled its cache"
        result = Result(location, verdict, Evidence.FULL, detail, datetime.now(UTC), size=image.size)
        self._hosts.ask("results", lambda: self._ledger.record([result]), None)
