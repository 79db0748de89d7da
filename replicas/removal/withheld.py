"""Complete files that cannot be read: unknown, not wrong. One rule for whoever meets one.

1. The file stays. Eviction treats it like any other; the last copy's rule holds for it as for any other.
2. It serves nobody on this host, from the moment that it was met (`Cache.withhold`).
3. The next pass of the janitor tells the ledger, so that no other host takes it for a copy that stays, and withdraws
   its row; not the row of the last copy that is known of, which says where to look for it.
4. Once it can be read it is read, and registered: where its mode was in the way by the next pass, else in some minutes.

A disk, a network or a mount that fails for a moment so takes no copy away.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime

from ..cache import Cache, CachedFile
from ..errors import CacheError, Unreadable
from ..ledger.host_registry import HostRegistry
from ..ledger.ledger import Ledger
from ..ledger.schema.rows import place_key
from ..model import Location, Result
from ..verdict import Evidence, Verdict
from .orders import RemovalOrders

log = logging.getLogger(__name__)

DENIED = "Glance's user may not read its file; see its mode and owner, or SELinux, AppArmor"
UNREADABLE = "its file cannot be read from its disk; see dmesg and smartctl"
WORDS = {Verdict.DENIED: DENIED, Verdict.UNREACHABLE: UNREADABLE}


def verdict(error: Unreadable) -> Verdict:
    """What is known of a file that cannot be read."""
    return Verdict.DENIED if isinstance(error.__cause__, PermissionError) else Verdict.UNREACHABLE


def withhold(cache: Cache, image_id: str, fd: int, error: CacheError) -> None:
    """The complete file behind `fd` serves nobody until it can be read; whatever else went wrong changes nothing."""
    log.error("image %s: its cached file stays, and is not served for now: %s", image_id, error)
    if isinstance(error, Unreadable):
        try:
            cache.complete.withhold(image_id, fd, error)
        except CacheError as fault:
            log.warning("image %s: this cannot be recorded: %s", image_id, fault)


def problems(entries: Iterable[CachedFile], cache: Cache) -> Iterator[str]:
    """What to tell an operator of the files that could not be read."""
    withheld = [file for file in entries if not file.readable]
    closed, faulty = ([file for file in withheld if bool(file.fault) is which] for which in (False, True))
    if closed:
        user = cache.user().name
        yield (
            f"{len(closed)} files cannot be read by {user}, who runs Glance, and are not registered; "
            f"as root: chown -R {user} {cache.folder}, or chmod u+r them"
        )
    if faulty:
        first = min(faulty, key=lambda entry: entry.image_id)
        yield (
            f"{len(faulty)} files could not be read, {first.image_id} among them ({first.fault}), and are not "
            f"registered; look at the disk of {cache.folder}: dmesg, smartctl. They stay, and are tried again"
        )


def rows_to_withdraw(
    rows: Collection[Location],
    entries: Mapping[str, CachedFile],
    ledger: Ledger,
    hosts: HostRegistry,
    removals: RemovalOrders,
) -> list[Location]:
    """Of these rows, whose files cannot be read, those that go; all are known as such. None when it cannot be asked.

    Killed in between: the next pass does it again.
    """

    def asked() -> list[Location]:
        known = ledger.lasts({row.image_id for row in rows})
        news = [location for location in rows if not _is_known(known.get((location.image_id, place_key(location))))]
        ledger.record([_result(location, entries[location.image_id]) for location in news])
        return list(removals.expendable(rows))

    return hosts.ask("last copies", asked, []) if rows else []


def _is_known(last: object) -> bool:
    return getattr(last, "verdict", None) in WORDS


def _result(row: Location, entry: CachedFile) -> Result:
    found = Verdict.UNREACHABLE if entry.fault else Verdict.DENIED
    return Result(row, found, Evidence.FULL, f"{WORDS[found]} {entry.fault}".strip(), datetime.now(UTC))
