"""The contract between kinds of store and all that uses them. To add a backend:

1. Write a `Reader`; a `Writer` if images are to be repaired there; a `Listing` if it is to be audited. What more a
   place can tell is one more method of its reader: see the four protocols after `Reader`.
2. Make a `Kind` of them. What it leaves as it is, glance_store's driver does (reading), or nobody (the rest).
3. Register it by the name that Glance has for its driver, in `kinds.py`; from outside this package by an entry point:

       [project.entry-points."glance_replicas.stores"]
       attic = "attic_store:Attic"

docs/add-a-backend.md has a whole one, and says which tests it has to pass. What every kind keeps to:

- Only a place that is well and answers for itself says `Absent`. An empty mount, a wrong address, an account or bucket
  that is not there, are `Unreachable`: whoever reads "absent" may remove what is the last name of an image.
- What goes wrong is a child of `SourceError` (writing: `Unwritable`, `Refused`) and no library's own error, its text is
  one line that names the place by `location.redact`: URLs hold passwords.
- Every wait ends, by `Limits`. A body that ends early raises; a listing that broke off raises. Nothing ends quietly.
- A write is all or nothing, also when it is killed: until the proven bytes are there, the old object is.
- Readers, writers and listings serve many threads at once, and open nothing before they are asked.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..errors import Unsupported
from ..model import Digest, Image, Location, Stored
from . import object_names
from .body import Body, Limits
from .identity import ObjectIdentity

if TYPE_CHECKING:
    from oslo_config import cfg


@dataclass(frozen=True)
class Store:
    """One enabled store: Glance's id for it (None in a single-store cloud) and the name of its kind."""

    id: str | None
    kind: str

    @property
    def name(self) -> str:
        """The id; in a single-store cloud the kind."""
        return self.id or self.kind


@dataclass(frozen=True)
class Configuration:
    """What a kind is told: glance-api.conf, all enabled stores, and how this program reads."""

    conf: "cfg.ConfigOpts"
    stores: tuple[Store, ...]
    limits: Limits = field(default_factory=Limits)
    from_disk: bool = False  # files are read past the page cache, for a verification
    cache_dir: Path | None = None  # of this host: never a store's

    def options(self, store: Store, wanted: Sequence[Any]) -> Any:
        """These options of a store as attributes, those of `[backend_defaults]` where its own group says nothing."""
        from . import configured

        return configured.group_options(self.conf, store.id, list(wanted))


class Reader(Protocol):
    """Reads URLs of certain schemes. Every fault is a child of SourceError."""

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
class StatesDigests(Protocol):
    """A reader of places that keep digests of what they hold. A copy's own word about itself is none."""

    def stored(self, url: str) -> Stored:
        """What the place says of the object, without reading it. Raises as `Reader.size`."""


@runtime_checkable
class Identifies(Protocol):
    """A reader of places where one object has several names that its URLs alone do not show to be one."""

    def identify(self, url: str) -> ObjectIdentity:
        """The object itself. Raises SourceError when that cannot be told."""


@runtime_checkable
class ChecksAccess(Protocol):
    """A reader of places that let in somebody else than Glance: what can be read here may be closed to it."""

    def obstacle(self, url: str) -> str | None:
        """Why Glance cannot read the object, and the remedy; None: it can, as far as can be told."""


@runtime_checkable
class Owns(Protocol):
    """A reader or writer that can tell by a URL alone whether Glance would have written it for this store."""

    def owns(self, url: str) -> bool:
        """Whether account, server and container or bucket of the URL are those of the store's options."""


class Original(Protocol):
    """The bytes an image is to have, out of its intact copies. Reading raises the children of SourceError."""

    size: int  # bytes
    digest: Digest
    md5: str | None  # hex, as the catalogue has it

    def whole(self) -> Iterator[bytes]:
        """Every byte, guarded: Corrupt in place of the last block when the digest turns out another."""

    def part(self, offset: int, length: int) -> Iterator[bytes]:
        """Some of them, not guarded: the caller knows what they must hash to."""


class Written(Protocol):
    """What was written, once it has taken the place of what was there."""

    def keep(self) -> None:
        """It was read again and is intact: nothing is left of what it replaced."""

    def remove(self) -> None:
        """Its image was deleted meanwhile: nothing is left of what was written."""


class Writer(Protocol):
    """Writes URLs of certain schemes in place; `schemes` and `store` as a reader's."""

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes it writes, lower-case."""

    @property
    def store(self) -> str | None:
        """The one store it writes to."""

    def rewrite(self, url: str, original: Original, ready: Callable[[], None]) -> Written:
        """The place holds the original's bytes, proven, and until that instant it held what it held before.

        `ready` is called just before that instant, and stops it by raising. Ended by an error (children of SourceError,
        Unwritable, Refused), or killed, partial output is ignored; the next repair starts over.
        """


@dataclass(frozen=True)
class Listed:
    """One file or object as its place lists it."""

    name: str
    size: int | None  # bytes; None: not stated
    modified: datetime | None  # UTC, aware, by the clock of the place
    spare: str = ""  # what is wrong with it, when it is dark whatever rows mean its name

    @property
    def image_id(self) -> str | None:
        """The image whose bytes Glance would keep under such a name; None for any other name."""
        return object_names.image_of(self.name)


class Listing(Protocol):
    """All that one place holds: a store, or the directory of a host."""

    @property
    def place(self) -> str:
        """`store:ID` or `host:NAME`."""

    @property
    def parts(self) -> tuple[str, ...]:
        """What the names of its things begin with: each part may be missing by itself."""

    def name_of(self, location: Location) -> str | None:
        """The name its thing would have here by its URL; None: it is elsewhere. Asks nobody over a network.

        Which store its row names does not count: that may be another one's word, or a store's that is not any more.
        """

    def location_of(self, entry: Listed) -> Location:
        """Where a thing with an image id in its name is, for the record."""

    def entries(self) -> Iterator[Listed]:
        """Everything that is there, finished or not. Any trouble raises (children of SourceError, CacheError)."""

    def remove(self, entry: Listed) -> bool:
        """It is gone; False: it is not what was listed any more, and was left. Raises as `entries`, and Unwritable."""


class Kind:
    """One kind of store. `stores` are the enabled ones of it: one reader may serve each of them, or one them all."""

    schemes: tuple[str, ...] = ()  # of its URLs
    opening = 1  # times the limit for a single read that glance_store's driver may take to open an object
    cost: int | None = None  # of reading there beside other kinds, 0 the least; None: what is usual among the others
    is_web = False  # something on the way may answer in its place: what is gone or of another size may be its page
    denies_for_good = False  # who may read does not change by itself: "denied" is not asked again

    def readers(self, stores: Sequence[Store], config: Configuration) -> Iterable[Reader]:
        """What reads them. None: glance_store's driver does, most of them without Range."""
        return ()

    def writers(self, stores: Sequence[Store], config: Configuration) -> Iterable[Writer]:
        """What writes into them. None: a damaged object there is reported, and left as it is."""
        return ()

    def listings(self, stores: Sequence[Store], config: Configuration) -> Iterable[Listing]:
        """What lists them. None: they cannot be audited."""
        return ()

    def url(self, store: Store, image: Image, config: Configuration) -> str:
        """Where Glance would put the image, with all that reading it takes. Raises Unsupported, ConfigError."""
        raise Unsupported(
            f"store {store.name}: nothing here writes to a {store.kind} store; have Glance copy the image there "
            f"(glance image-import {image.id} --import-method copy-image --stores {store.id}), or upload it anew"
        )

    def seen_here(self, url: str) -> ObjectIdentity | None:
        """The object behind a URL as this machine sees it, each time anew; None: its reader knows, or the URL tells."""
        return None

    def bounded(self, driver: Any, seconds: float) -> Callable[..., Any]:
        """glance_store's driver of this kind, as a class whose calls end within `seconds`, where it can be told so."""
        found: Callable[..., Any] = driver
        return found
