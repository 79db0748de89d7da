"""Places against the catalogue: what is dark, what is lost, and the removal of what is dark for good.

The flow between listings, the catalogue and our table of orphans. When a place could not be asked to the end, nothing
of it is judged. Killed anywhere, an audit has changed nothing but that table; a removal has its line in the ledger
first.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

from ..catalogue.images import LIVE, Catalogue
from ..errors import CacheError, SourceError
from ..ledger.ledger import Ledger
from ..ledger.orphans import DARK, Kind, Orphan, Orphans, Sighting
from ..model import Location
from ..stores.contract import Listed, Listing
from ..stores.hosts import remote
from ..stores.sources import Sources
from ..verdict import Evidence, Verdict
from ..verify.probe import probe
from ..verify.store_loss import is_at_fault
from . import consistency
from .consistency import Rows

log = logging.getLogger(__name__)

DARK_SIGHTINGS = 2  # audits that must have seen a dark thing before it may go
_WAITS = "pending_delete"


@dataclass(frozen=True)
class AuditFinding:
    """One thing in one side only."""

    orphan: Orphan
    status: str | None  # of the image that the name stands for; None: none, or deleted long ago
    entry: Listed | None = None  # of what is dark
    location: Location | None = None  # of what is lost
    why_kept: str = ""  # why a dark thing is never removed by us; "": it may be, in time

    @property
    def may_go(self) -> bool:
        """It was dark often enough, and nothing speaks for it."""
        return self.entry is not None and not self.why_kept and self.orphan.sightings >= DARK_SIGHTINGS


@dataclass(frozen=True)
class AuditReport:
    """What an audit of one place found; with a `problem` nothing of it was judged."""

    place: str
    listed: int = 0
    named: int = 0  # by the catalogue
    findings: tuple[AuditFinding, ...] = ()
    odd: tuple[Location, ...] = ()  # rows that name the place and nothing that can be in it: not judged
    problem: str | None = None

    def count(self, kind: Kind) -> int:
        """How many findings are of this kind."""
        return sum(finding.orphan.kind is kind for finding in self.findings)

    @property
    def is_at_fault(self) -> bool:
        """Whether so much of a store is lost at once that the store, as seen from here, is at fault."""
        return self.place.startswith("store:") and is_at_fault(self.count(Kind.LOST), self.named)

    def too_many(self, share: Fraction) -> str | None:
        """Why nothing of this place may be removed: more than this share of it is dark, or lost; None: it may."""
        for kind, whole, of in ((Kind.DARK, self.listed, "listed"), (Kind.LOST, self.named, "in the catalogue")):
            number = self.count(kind)
            if consistency.exceeds(number, whole, share):
                return f"{number} of {whole} {of} are {kind}, more than {float(100 * share):g} %: is it the right one?"
        return None


class Auditor:
    """Audits places, and removes what is dark. `ledger` keeps what was seen."""

    def __init__(self, catalogue: Catalogue, ledger: Ledger, sources: Sources, *, grace_seconds: float) -> None:
        self._catalogue, self._ledger, self._sources = catalogue, ledger, sources
        self._orphans = Orphans(ledger.database)
        self._grace = grace_seconds

    def audit(self, listings: Sequence[Listing]) -> list[AuditReport]:
        """A report for each. Raises CatalogueError: then nothing is known of any. Raises LedgerError."""
        before = self._rows(listings)
        lists = [_listed(listing) for listing in listings]
        after = self._rows(listings)
        groups = zip(listings, before, lists, after, strict=True)
        return [self._judge(*group) for group in groups]

    def remove(self, listing: Listing, finding: AuditFinding, who: str) -> bool:
        """A dark thing is gone, noted in the ledger first; False: it, or its image, is not as it was judged.

        Another host is asked by that line, and does it. Killed in between, the line in the ledger stays open and the
        thing is there, or not: the next audit says which.
        Raises CatalogueError, LedgerError, SourceError, CacheError, Unwritable.
        """
        entry, orphan = finding.entry, finding.orphan
        if entry is None or not finding.may_go:
            return False
        if self._statuses([entry]).get(entry.image_id or "") not in (None, "deleted"):
            return False
        proof = {"first_seen": orphan.first_seen, "sightings": orphan.sightings, "bytes": entry.size}
        line = self._ledger.request_withdrawal(listing.location_of(entry), reason=DARK, who=who, proof=proof)
        if isinstance(listing, remote.Listing):
            return True
        try:
            gone = listing.remove(entry)
        finally:
            self._ledger.finish_withdrawal(line)
        if gone:
            log.info("image %s: dark %s removed from %s", entry.image_id, entry.name, listing.place)
            self._orphans.forget(listing.place, [orphan.name])
        return gone

    def _rows(self, listings: Sequence[Listing]) -> list[Rows]:
        """What the catalogue says now, of each place."""
        found = [Rows() for _ in listings]
        hosts = [listing.place.removeprefix("host:") for listing in listings if listing.place.startswith("host:")]
        for location, is_active in self._catalogue.claims(hosts):
            for listing, rows in zip(listings, found, strict=True):
                if (name := listing.name_of(location)) is not None:
                    rows.add(name, location, is_active and self._is_of(listing, location))
                elif is_active and listing.place == f"store:{location.store}":
                    rows.odd.append(location)
        return found

    def _is_of(self, listing: Listing, location: Location) -> bool:
        """Whether a row that means a thing of this place is lost without it: not where it names another store.

        It speaks for the thing all the same, which then is not dark.
        """
        place, store = listing.place, location.store
        return not place.startswith("store:") or place == f"store:{store}" or store not in self._sources.enabled

    def _judge(self, listing: Listing, before: Rows, listed: dict[str, Listed] | str, after: Rows) -> AuditReport:
        if isinstance(listed, str):
            return AuditReport(listing.place, problem=listed)
        whole = [entry.name for entry in listed.values() if not entry.spare]
        if (part := consistency.empty_part(listing.parts, before, whole)) is not None:
            where = part.rstrip("/") or "the directory"
            return AuditReport(
                listing.place, problem=f"{where} is empty, the catalogue names files in it: is it mounted?"
            )
        now = datetime.now(UTC)
        old = [entry for entry in consistency.dark(before, listed.values(), after) if self._is_old(entry, now)]
        try:
            missing = dict(self._confirmed(consistency.lost(before, listed, after)))
        except SourceError as error:
            return AuditReport(listing.place, problem=f"{error}")
        statuses = self._statuses(old)
        dark = [entry for entry in old if statuses.get(entry.image_id or "") != _WAITS]  # those are the scrubber's
        seen = [Sighting(entry.name, Kind.DARK, entry.image_id, entry.size) for entry in dark]
        seen += [Sighting(name, Kind.LOST, location.image_id, None) for name, location in missing.items()]
        orphans = self._orphans.saw(listing.place, seen)
        findings = [_dark(orphan, entry, statuses) for orphan, entry in zip(orphans, dark, strict=False)]
        findings += [
            AuditFinding(orphan, None, location=location)
            for orphan, location in zip(orphans[len(dark) :], missing.values(), strict=True)
        ]
        return AuditReport(listing.place, len(listed), len(after.named), tuple(findings), tuple(after.odd))

    def _is_old(self, entry: Listed, now: datetime) -> bool:
        return not consistency.is_young(entry, now, self._grace)

    def _confirmed(self, lost: dict[str, Location]) -> Iterator[tuple[str, Location]]:
        """Of these the ones whose place says itself that they are not there, of images that should have them.

        A listing may be behind, and may spell a name otherwise. Raises SourceError when a place does not answer.
        """
        images = {
            image.id: image for image in self._catalogue.images([location.image_id for location in lost.values()])
        }
        for name, location in lost.items():
            image = images.get(location.image_id)
            if image is None or location not in image.locations or image.status not in LIVE:
                continue
            result = probe(self._sources, image, location, Evidence.SIZE)
            if result.verdict is Verdict.MISSING:
                yield name, location
            elif result.verdict.is_path_fault:
                raise SourceError(result.detail)

    def _statuses(self, entries: Sequence[Listed]) -> dict[str, str]:
        return self._catalogue.statuses({entry.image_id for entry in entries if entry.image_id})


def _listed(listing: Listing) -> dict[str, Listed] | str:
    """Everything in a place by name, or why that could not be had."""
    try:
        return {entry.name: entry for entry in listing.entries()}
    except (SourceError, CacheError) as error:
        log.warning("%s: %s", listing.place, error)
        return str(error)


def _dark(orphan: Orphan, entry: Listed, statuses: dict[str, str]) -> AuditFinding:
    status = statuses.get(entry.image_id or "")
    if entry.image_id is None:
        return AuditFinding(orphan, None, entry, why_kept="no name that Glance gives")
    if entry.spare and status not in (None, "deleted"):
        return AuditFinding(orphan, status, entry, why_kept=entry.spare)
    if status not in (None, "deleted"):
        return AuditFinding(orphan, status, entry, why_kept=f"the image is {status}")
    return AuditFinding(orphan, status, entry)
