"""Another host's directory, as that host lists it itself when it is asked: `GET /replicas/`, signed.

One line for each complete file, `ID SIZE VERIFIED_AT`, and at the end `end COUNT`: a list without it is none. What is
dark there that host removes itself (`Janitor`), after a look of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from ...cache import CachedFile as File
from ...errors import Absent, Denied, Unreachable, WrongAnswer
from ...location import is_replica_of, replica_url
from ...model import HOST_KEY, Host, Location, is_image_id
from ..body import Limits
from ..contract import Listed
from ..http.answers import Target
from ..http.wire import Wire

PATH = "/replicas/"
_MOST = 1 << 20  # files of a host
_LONGEST = 120  # bytes of a line


class Listing:
    """The files of another host, named by their images. `sign` makes the URL that goes out."""

    parts = ("",)

    def __init__(self, host: Host, sign: Callable[[str], str], limits: Limits) -> None:
        self.place = f"host:{host.name}"
        self._host, self._sign, self._wire = host, sign, Wire(limits)

    def name_of(self, location: Location) -> str | None:
        """The image's id, for a registration of that host's own."""
        return location.image_id if is_replica_of(location, self._host.name, self._host.url) else None

    def location_of(self, entry: Listed) -> Location:
        """Under that host's URL, whether it is registered or not."""
        return Location(entry.name, replica_url(self._host.url, entry.name), {HOST_KEY: self._host.name})

    def entries(self) -> Iterator[Listed]:
        """Every complete file. Raises the children of SourceError, also when the list has no end."""
        url = f"{self._host.url.rstrip('/')}{PATH}"
        target = Target(self._sign(url), url)
        try:
            with self._wire.open(target) as body:
                yield from files(body, url)
        except Absent as error:
            raise Unreachable(
                f"{url}: host {self._host.name} does not list its files; is it of an older version?"
            ) from error
        except Denied as error:
            raise Denied(f"{error}: are signing_keys the same here and there?") from error

    def remove(self, entry: Listed) -> bool:
        """Nothing is removed from here."""
        return False


def written(held: Iterable[File]) -> bytes:
    """The list of these files."""
    lines = [f"{file.image_id} {file.size} {file.verified_at:.6f}\n" for file in held]
    return "".join([*lines, f"end {len(lines)}\n"]).encode()


def files(body: Iterable[bytes], shown: str) -> Iterator[Listed]:
    """The files that a list of another host names. Raises WrongAnswer unless it is whole and well formed."""
    return _parsed(_lines(body, shown), shown)


def _lines(body: Iterable[bytes], shown: str) -> Iterator[str]:
    """The lines; what comes after the last line feed is none."""
    rest = b""
    for chunk in body:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST:
            raise WrongAnswer(f"{shown}: the answer is no list of files")
        yield from (line.decode("ascii", "replace") for line in lines)


def _parsed(lines: Iterable[str], shown: str) -> Iterator[Listed]:
    """The files. Raises WrongAnswer for any line that is none, and unless the end states how many there were."""
    count = 0
    for line in lines:
        name, _, rest = line.partition(" ")
        if name == "end":
            if rest != str(count):
                raise WrongAnswer(f"{shown}: a list of {count} files that states another number")
            return
        entry = _entry(name, rest)
        if entry is None or count >= _MOST:
            raise WrongAnswer(f"{shown}: the answer is no list of files")
        count += 1
        yield entry
    raise WrongAnswer(f"{shown}: the list breaks off after {count} files")


def _entry(name: str, rest: str) -> Listed | None:
    try:
        size, verified_at = rest.split(" ")
        moment = datetime.fromtimestamp(float(verified_at), UTC)
    except (ValueError, OverflowError, OSError):
        return None
    is_size = size.isascii() and size.isdigit() and len(size) <= 18
    return Listed(name, int(size), moment) if is_image_id(name) and is_size else None
