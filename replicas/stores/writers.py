"""What puts right bytes back where damaged ones, or none, are: one writer per kind of URL, and `Writers`."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from ..errors import Unsupported
from ..location import scheme
from ..model import Digest, Location
from .owner import owner

if TYPE_CHECKING:
    from ..settings import Settings

__all__ = ["Original", "Restored", "Writer", "Writers", "from_settings"]


class Original(Protocol):
    """The bytes an image is to have, out of its intact copies. Reading raises the children of SourceError."""

    size: int  # bytes
    digest: Digest
    md5: str | None  # hex, as the catalogue has it

    def whole(self) -> Iterator[bytes]:
        """Every byte, guarded: Corrupt in place of the last block when the digest turns out another."""

    def part(self, offset: int, length: int) -> Iterator[bytes]:
        """Some of them, not guarded: the caller knows what they must hash to."""


class Restored(Protocol):
    """What was written, once it has taken the place of what was there."""

    def keep(self) -> None:
        """It was read again and is intact: nothing is left of what it replaced."""

    def remove(self) -> None:
        """Its image was deleted meanwhile: nothing is left of what was written."""


class Writer(Protocol):
    """Writes URLs of certain schemes in place; one writer serves many threads."""

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes it writes, lower-case."""

    @property
    def store(self) -> str | None:
        """The one store it writes to, by Glance's id; None: a URL says all there is to know."""

    def restore(self, url: str, original: Original, ready: Callable[[], None]) -> Restored:
        """The place holds the original's bytes, proven, and until that instant it held what it held before.

        `ready` is called just before that instant, and stops it by raising. Ended by an error (children of SourceError,
        Unwritable, Refused), or killed, what was written so far is nobody's, and the next one begins anew.
        """


class Writers:
    """Every place this host can write. For many threads at once."""

    def __init__(self, writers: Sequence[Writer], enabled: Collection[str] = ()) -> None:
        self._writers, self._enabled = tuple(writers), frozenset(enabled)

    def of(self, location: Location) -> Writer:
        """The one that writes there. Raises Unsupported when there is none, or it is not known which."""
        kind = scheme(location.url)
        fitting = [one for one in self._writers if kind in one.schemes]
        if (found := owner(fitting, location, self._enabled)) is not None:
            return found
        raise Unsupported(f"nothing here writes {kind or 'such'} URLs")


def from_settings(settings: "Settings") -> Writers:
    """A writer for each store of glance-api.conf that can be written in place; its options are parsed already."""
    from oslo_config import cfg

    from . import configured
    from .file import writer as file_writer
    from .s3 import writer as s3_writer
    from .sources import Limits
    from .swift import writer as swift_writer

    conf = cfg.CONF
    enabled = configured.stores(conf)
    writers: list[Writer] = []
    habits = {
        root: configured.file_habits(conf, one.id)
        for one in enabled
        if one.kind == "file"
        for root in configured.file_roots(conf, one.id)
    }
    if habits:
        writers.append(file_writer.Writer(list(habits), habits))
    limits = Limits(settings.connect_timeout_seconds, settings.stall_timeout_seconds)
    writers += [swift_writer.Writer(conf, one.id, limits) for one in enabled if one.kind == "swift"]
    writers += [s3_writer.Writer(conf, one.id, limits) for one in enabled if one.kind == "s3"]
    return Writers(writers, [one.id for one in enabled if one.id])
