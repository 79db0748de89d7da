"""The folders of a file store: every regular file below them."""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ...errors import SourceError, Unreachable, Unwritable
from ...model import STORE_KEY, Location
from ..contract import Listed
from .reader import below, folder


class Listing:
    """The files below `roots`, named by their absolute paths. Links are neither followed nor listed.

    `others` are folders of somebody else's that may lie below a root: other stores, the cache, Glance's staging.
    """

    def __init__(self, place: str, store: str | None, roots: Sequence[Path], others: Iterable[Path] = ()) -> None:
        self.place, self._store = place, store
        self._roots = [Path(os.path.realpath(root)) for root in roots]
        own = {str(path) for path in self._roots}
        self._others = {real for other in others if (real := os.path.realpath(other)) not in own}
        self.parts = tuple(f"{root}/" for root in self._roots)

    def name_of(self, location: Location) -> str | None:
        """The path, with links above the root resolved; None outside the roots."""
        try:
            root, steps = below(self._roots, location.url)
        except SourceError:
            return None
        return str(root.joinpath(*steps))

    def location_of(self, entry: Listed) -> Location:
        """As Glance would write its URL."""
        return Location(entry.image_id or "", f"file://{entry.name}", {STORE_KEY: self._store} if self._store else {})

    def entries(self) -> Iterator[Listed]:
        """Every regular file. A folder that cannot be read ends it: Unreachable."""
        for root in self._roots:
            try:
                yield from self._walk(root)
            except OSError as error:
                where = f"{error.filename or '.'} in {root}"  # a name alone: folders are opened below their parents
                raise Unreachable(f"{where}: {(error.strerror or 'unreadable').lower()}") from error

    def remove(self, entry: Listed) -> bool:
        """The file is gone, unless it was written again since it was listed. Raises Unwritable."""
        root, steps = below(self._roots, f"file://{entry.name}")
        try:
            at = folder(root, steps[:-1])
            try:
                if _entry(entry.name, os.stat(steps[-1], dir_fd=at, follow_symlinks=False)) != entry:
                    return False
                os.unlink(steps[-1], dir_fd=at)
            finally:
                os.close(at)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unwritable(f"{entry.name}: {(error.strerror or 'cannot be removed').lower()}") from error
        return True

    def _walk(self, root: Path) -> Iterator[Listed]:
        for path, folders, files, at in os.fwalk(root, onerror=_fail, follow_symlinks=False):
            folders[:] = [name for name in folders if os.path.join(path, name) not in self._others]
            for name in files:
                with contextlib.suppress(FileNotFoundError):  # gone since the folder was read
                    facts = os.stat(name, dir_fd=at, follow_symlinks=False)
                    if stat.S_ISREG(facts.st_mode):
                        yield _entry(os.path.join(path, name), facts)


def _entry(name: str, facts: os.stat_result) -> Listed:
    """The later of two times: a file that was renamed or restored a moment ago is young."""
    return Listed(name, facts.st_size, datetime.fromtimestamp(max(facts.st_mtime, facts.st_ctime), UTC))


def _fail(error: OSError) -> None:
    raise error
