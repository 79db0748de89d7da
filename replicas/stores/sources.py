"""Readers of image bytes, one module per kind of URL, and `Sources`, which picks the right one."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..errors import Unsupported
from ..location import place, redact, scheme
from ..model import Location, Stored
from .body import Body, Limits
from .identity import Place
from .owner import owner

if TYPE_CHECKING:
    from ..settings import Settings

__all__ = ["BACKGROUND", "Body", "Fallback", "Limits", "Place", "Reader", "Sources", "from_settings"]


class Reader(Protocol):
    """Reads URLs of certain schemes. Every fault is a child of SourceError; one reader serves many threads."""

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes it reads, lower-case."""

    @property
    def store(self) -> str | None:
        """The one store it reads for, by Glance's id; None: a URL says all there is to know."""

    def size(self, url: str) -> int | None:
        """The length of the whole object in bytes as the place states it, None when it does not."""

    def open(self, url: str, offset: int = 0, stop: int | None = None) -> Body:
        """The bytes from `offset` on, exactly. WrongAnswer when the object is shorter than that.

        Nobody reads further than to before `stop`: the place may be asked for no more.
        """


@runtime_checkable
class Witness(Protocol):
    """A reader of places that keep digests of what they hold. A copy's own word about itself is none."""

    def stored(self, url: str) -> Stored:
        """What the place says of the object, without reading it. Raises as `Reader.size`."""


@runtime_checkable
class Placed(Protocol):
    """A reader of places where one object has several names that its URLs alone do not show to be one."""

    def place(self, url: str) -> Place:
        """The object itself. Raises SourceError when that cannot be told."""


@runtime_checkable
class Owned(Protocol):
    """A reader of places that let in somebody else than Glance: what can be read here may be closed to it."""

    def obstacle(self, url: str) -> str | None:
        """Why Glance cannot read the object, and the remedy; None: it can, as far as can be told."""


class Fallback(Protocol):
    """Reads what no `Reader` knows; needs the location, because only its store id says how."""

    def size(self, location: Location) -> int | None:
        """As `Reader.size`."""

    def open(self, location: Location, offset: int = 0, stop: int | None = None) -> Body:
        """As `Reader.open`."""


class Sources:
    """Every location this host can read, those of other hosts by `peers`. For many threads at once."""

    def __init__(
        self,
        readers: Sequence[Reader],
        fallback: Fallback | None = None,
        *,
        peers: Fallback | None = None,
        enabled: Collection[str] = (),
    ) -> None:
        self._readers, self._enabled = tuple(readers), frozenset(enabled)
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
        return reader.stored(location.url) if isinstance(reader, Witness) else Stored(self.size(location))

    def damage(self, location: Location) -> str | None:
        """A part of the object that its place knows to be gone or another one; None where it knows of none."""
        reader = self._reader(location)
        return reader.stored(location.url).damage if isinstance(reader, Witness) else None

    def place(self, location: Location) -> Place:
        """The copy behind a location, whatever its URL is. Raises SourceError when that cannot be told now."""
        reader = self._reader(location)
        return reader.place(location.url) if isinstance(reader, Placed) else Place(place(location))

    def obstacle(self, location: Location) -> str | None:
        """Why Glance cannot read what was just read here, and the remedy; None: nothing is known to stand between."""
        reader = self._reader(location)
        return reader.obstacle(location.url) if isinstance(reader, Owned) else None

    def _peers_for(self, location: Location) -> Fallback | None:
        """What reads copies on hosts, for one of them."""
        return self._peers if location.is_cached and scheme(location.url) in ("http", "https") else None

    def _reader(self, location: Location) -> Reader | None:
        fitting = [one for one in self._readers if scheme(location.url) in one.schemes]
        return owner(fitting, location, self._enabled)

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
    the page cache. Nothing is opened, and no
    store driver loaded, before a location asks for it.
    """
    from oslo_config import cfg

    from . import configured
    from .drivers import reader as driver_reader
    from .file import reader as file_reader
    from .http import reader as http_reader

    conf = cfg.CONF
    enabled = configured.stores(conf)
    kept = limits or Limits(settings.connect_timeout_seconds, settings.stall_timeout_seconds)
    patience = Limits(kept.connect, min(settings.peer_timeout_seconds, kept.stall), SLOWEST_PEER)
    tls = configured.http_tls(conf)
    peers = http_reader.Peers(limits or patience, signer, headers, tls)
    readers: list[Reader] = [http_reader.Reader(kept, tls)]
    roots = [root for one in enabled if one.kind == "file" for root in configured.file_roots(conf, one.id)]
    if roots:
        readers.append(file_reader.Reader(roots, from_disk=from_disk))
    readers += [_of_kind(one.kind)(conf, one.id, kept) for one in enabled if one.kind in ("swift", "s3")]
    rest = driver_reader.Reader(conf, [(one.id, one.kind) for one in enabled], limits=kept)
    return Sources(readers, rest, peers=peers, enabled=[one.id for one in enabled if one.id])


def _of_kind(kind: str) -> Callable[..., Reader]:
    """Loaded only where there is such a store: each brings a library of its own."""
    if kind == "s3":
        from .s3 import reader as s3_reader

        return s3_reader.Reader
    from .swift import reader as swift_reader

    return swift_reader.Reader
