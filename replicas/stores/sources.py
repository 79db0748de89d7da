"""`Sources` reads every location that this host can read: it picks the reader of the URL's kind of store."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from ..errors import Unsupported
from ..location import is_web, place, redact, scheme
from ..model import Location, Stored
from .body import Body, Limits
from .contract import ChecksAccess, Identifies, Reader, StatesDigests
from .identity import ObjectIdentity
from .owner import owner

if TYPE_CHECKING:
    from ..settings import Settings


class Fallback(Protocol):
    """Reads what no `Reader` knows; needs the location, because only its store id says how."""

    def size(self, location: Location) -> int | None:
        """As `Reader.size`."""

    def open(self, location: Location, offset: int = 0, stop: int | None = None) -> Body:
        """As `Reader.open`."""


class Sources:
    """Every location this host can read, those of other hosts by `peers`. For many threads at once.

    `enabled` are the ids of all stores there are.
    """

    def __init__(
        self,
        readers: Sequence[Reader],
        fallback: Fallback | None = None,
        *,
        peers: Fallback | None = None,
        enabled: Collection[str] = (),
    ) -> None:
        self._readers, self.enabled = tuple(readers), frozenset(enabled)
        self._fallback = fallback
        self._peers = peers

    def open(self, location: Location, offset: int = 0, stop: int | None = None) -> Body:
        """The bytes of a location from `offset` on, as `Reader.open`. Raises the children of SourceError."""
        if peers := self._peers_for(location):
            return peers.open(location, offset, stop)
        if reader := self._reader(location):
            return reader.open(location.url, offset, stop)
        return self._last_resort(location).open(location, offset, stop)

    def size(self, location: Location) -> int | None:
        """What the place says is the length in bytes, if it says. Raises the children of SourceError."""
        if peers := self._peers_for(location):
            return peers.size(location)
        reader = self._reader(location)
        return reader.size(location.url) if reader else self._last_resort(location).size(location)

    def stored(self, location: Location) -> Stored:
        """What the place itself says of the object; its size alone where it keeps no digest. Raises as `size`."""
        reader = self._reader(location)
        return reader.stored(location.url) if isinstance(reader, StatesDigests) else Stored(self.size(location))

    def damage(self, location: Location) -> str | None:
        """A part of the object that its place knows to be gone or another one; None where it knows of none."""
        reader = self._reader(location)
        return reader.stored(location.url).damage if isinstance(reader, StatesDigests) else None

    def identify(self, location: Location) -> ObjectIdentity:
        """The copy behind a location, whatever its URL is. Raises SourceError when that cannot be told now."""
        reader = self._reader(location)
        if isinstance(reader, Identifies):
            return reader.identify(location.url)
        return ObjectIdentity(place(location))

    def obstacle(self, location: Location) -> str | None:
        """Why Glance cannot read what was just read here, and the remedy; None: nothing is known to stand between."""
        reader = self._reader(location)
        return reader.obstacle(location.url) if isinstance(reader, ChecksAccess) else None

    def _peers_for(self, location: Location) -> Fallback | None:
        """What reads copies on hosts, for one of them."""
        return self._peers if location.is_cached and is_web(location.url) else None

    def _reader(self, location: Location) -> Reader | None:
        fitting = [reader for reader in self._readers if scheme(location.url) in reader.schemes]
        return owner(fitting, location, self.enabled)

    def _last_resort(self, location: Location) -> Fallback:
        if self._fallback is None:
            raise Unsupported(f"{redact(location.url)}: nothing here reads {scheme(location.url) or 'such'} URLs")
        return self._fallback


SLOWEST_PEER = 64 << 10  # bytes per second; there is always somebody else to ask
BACKGROUND = {"Priority": "u=7"}  # of a request whose answer nobody waits for (RFC 9218 section 4.1)


def from_settings(
    settings: "Settings",
    *,
    limits: Limits | None = None,
    signer: Callable[[Location], str] | None = None,
    headers: Mapping[str, str] | None = None,
    from_disk: bool = False,
) -> Sources:
    """Everything a host with this glance-api.conf can read; its options are parsed already (`settings.load`).

    `limits` default to the options' own, which are narrower for other hosts. `signer` makes the URL that really goes
    out of another host's copy, and of nothing else; `headers` go to other hosts. With `from_disk` files are read past
    the page cache. Nothing is opened, and no store driver loaded, before a location asks for it.
    """
    from . import configured, kinds
    from .drivers import reader as driver_reader
    from .http import options
    from .http import reader as http_reader

    config = configured.read(settings, limits=limits, from_disk=from_disk)
    kept, stores = config.limits, config.stores
    patience = Limits(kept.connect, min(settings.peer_timeout_seconds, kept.stall), SLOWEST_PEER)
    peers = http_reader.Peers(limits or patience, signer, headers, options.tls(config.conf))
    rest = driver_reader.Reader(config.conf, [(store.id, store.kind) for store in stores], limits=kept)
    return Sources(kinds.readers(config), rest, peers=peers, enabled=[store.id for store in stores if store.id])
