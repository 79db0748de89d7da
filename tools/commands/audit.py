"""`replica audit`: what hosts and stores hold that no row means, and rows whose bytes are not there."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from glance_replicas import signing
from glance_replicas.errors import ConfigError, Refused, ReplicaError
from glance_replicas.ledger.host_registry import is_alive
from glance_replicas.ledger.orphans import Kind
from glance_replicas.model import Host

from ...caller import who
from .. import advice, held_back
from ..command import DAMAGED, UNKNOWN, ClosedLister
from ..options import values
from ..output.cells import Bytes, Text, When
from ..output.text import age, count

if TYPE_CHECKING:
    from glance_replicas.audit.flow import AuditFinding, Auditor, AuditReport
    from glance_replicas.stores.contract import Listing

HELD_BACK = "fix the store first"
ODD_SHOWN = 100  # images with rows that name nothing, each with a line of its own
SIGNED_SECONDS = 60  # for which a host lists its files to whoever has the URL
COLUMNS = ("Place", "Kind", "Name", "Image", "Status", "Size", "Since", "Seen", "Action", "Next")


class Audit(ClosedLister):
    """Compare what hosts and stores really hold with the catalogue: dark files, and lost rows.

    Dark: a file or object that no row means. Lost: a row whose bytes are not there. Exit status: 0 both agree; 1 there
    are dark or lost ones; 3 a place could not be listed, or rows name nothing that can be in it: these were not judged.
    """

    example = "replica audit --store fast"

    columns = COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Which places, and what may go."""
        parser = super().get_parser(prog_name)
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("--host", metavar="HOST", help="this host's directory, or another host (its host_name)")
        where.add_argument("--store", metavar="STORE", help="this store (its id; in a single-store cloud its kind)")
        where.add_argument("--all", action="store_true", help="every store that can be listed here, and every host")
        add = parser.add_argument
        text = "leave out what is younger: it may be on its way into the catalogue (1d)"
        add("--grace", type=values.seconds, default=86400.0, metavar="AGE", help=text)
        add("--remove-dark", action="store_true", help="remove what at least two audits found dark; with --yes")
        text = "remove nothing from a place where more than this percentage is dark, or lost (10)"
        add("--max-share", type=values.percent, default=Fraction(1, 10), metavar="PERCENT", help=text)
        add("--yes", action="store_true", help="do it; without, only what would be done is shown")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """One row for each orphan."""
        from glance_replicas.audit.flow import Auditor

        if not self.ledger.is_current():
            raise Refused(
                "the ledger's tables are missing or old, and audits need them to remember; run: replica db upgrade"
            )
        listings, dead = self._places(parsed_args)
        auditor = Auditor(self.catalogue, self.ledger, self.sources, grace_seconds=parsed_args.grace)
        reports = auditor.audit(listings)
        reports += [_silent(host) for host in dead]
        by_place = {listing.place: listing for listing in listings}
        self.lines: list[str] = []
        self._tell_only_cached()
        groups = (self._rows(auditor, by_place.get(report.place), report, parsed_args) for report in reports)
        return COLUMNS, [row for rows in groups for row in rows]

    def _tell_only_cached(self) -> None:
        """What no place has lost and yet no store has."""
        for image in self.catalogue.images(self.catalogue.only_cached()):
            self.lines += [advice.only_cached(image), f"    next: {advice.put_back(image)}"]
            self.worsen(DAMAGED)

    def _places(self, parsed: argparse.Namespace) -> tuple[list["Listing"], list[Host]]:
        """What can be listed, living hosts too, and hosts that are dead. Raises ConfigError for a name of neither."""
        from glance_replicas.stores import listings

        here = {from_setting.place: from_setting for from_setting in listings.from_settings(self.settings)}
        hosts = [host for host in self.ledger.hosts() if f"host:{host.name}" not in here]
        here |= {f"host:{host.name}": self._of_host(host) for host in hosts if is_alive(host, self.settings)}
        dead = {f"host:{host.name}": host for host in hosts if f"host:{host.name}" not in here}
        if parsed.all:
            return list(here.values()), list(dead.values())
        place = f"host:{parsed.host}" if parsed.host else f"store:{parsed.store}"
        if place in here or place in dead:
            return ([here[place]], []) if place in here else ([], [dead[place]])
        known = ", ".join(sorted({*here, *dead}))
        raise ConfigError(f"{place} cannot be audited from here; there are: {known}")

    def _of_host(self, host: Host) -> "Listing":
        from glance_replicas.stores.body import Limits
        from glance_replicas.stores.hosts import remote

        keys = self.settings.signing_keys
        limits = Limits(self.settings.connect_timeout_seconds, self.settings.stall_timeout_seconds)
        return remote.Listing(host, lambda url: signing.sign(url, keys, SIGNED_SECONDS), limits)

    def _rows(
        self, auditor: "Auditor", listing: "Listing | None", report: "AuditReport", parsed: argparse.Namespace
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of one place; what may go goes on the way."""
        refusal = report.too_many(parsed.max_share) if parsed.remove_dark else None
        now = self.now()
        actions: list[str] = []
        for finding in report.findings:
            action = "remove" if parsed.remove_dark and finding.may_go and not refusal else "keep"
            if action == "remove" and parsed.yes and listing is not None:
                action = self._remove(auditor, listing, finding)
            actions.append(action)
            lost = finding.orphan.kind is Kind.LOST
            advised = HELD_BACK if lost and report.is_at_fault else _next(finding, action, refusal)
            yield _row(finding, action, advised, now)
        removed = sum(action in ("removed", "asked") for action in actions)
        self.lines += _closing(report, removed, refusal, is_here="asked" not in actions)
        if report.problem or report.odd:
            self.worsen(UNKNOWN)
        if not report.problem and len(report.findings) > removed:
            self.worsen(DAMAGED)

    def _remove(self, auditor: "Auditor", listing: "Listing", finding: "AuditFinding") -> str:
        from glance_replicas.stores.hosts import remote

        try:
            if not auditor.remove(listing, finding, who()):
                return "changed"
            return "asked" if isinstance(listing, remote.Listing) else "removed"
        except ReplicaError as error:
            self.note(f"{listing.place}: {finding.orphan.name} was not removed: {error}")
            self.worsen(UNKNOWN)
            return "failed"


def _silent(host: Host) -> "AuditReport":
    from glance_replicas.audit.flow import AuditReport

    return AuditReport(f"host:{host.name}", problem=f"the host has been silent for {age(host.age_seconds)}")


def _closing(report: "AuditReport", removed: int, refusal: str | None, *, is_here: bool) -> Iterator[str]:
    """What the place as a whole came to."""
    if report.problem:
        yield f"{report.place}: nothing was judged: {report.problem}"
        kind, _, name = report.place.partition(":")
        yield f"    next: fix that, then: replica audit --{kind} {name}"
        return
    what = "removed" if is_here else "to be removed by the host within seconds"
    gone = f", {removed} {what}" if removed else ""
    dark, lost = report.count(Kind.DARK), report.count(Kind.LOST)
    yield f"{report.place}: {report.listed} listed, {report.named} in the catalogue: {dark} dark, {lost} lost{gone}"
    if report.is_at_fault:
        yield f"    so many lost at once are one problem of the store: {held_back.WHY}"
        yield f"    next: {held_back.NEXT}"
    if report.odd:
        yield f"    {count(len(report.odd), 'row')} name this store and nothing that can be in it, and were not judged:"
        ids = list(dict.fromkeys(location.image_id for location in report.odd))
        yield from (f"    next: replica verify {image_id}" for image_id in ids[:ODD_SHOWN])
        if len(ids) > ODD_SHOWN:
            yield f"    and {count(len(ids) - ODD_SHOWN, 'image')} more; they are named when these are put right"
    if refusal:
        yield f"    nothing was removed: {refusal}"
        yield "    next: compare the store's options and its mount with the catalogue's URLs; or a larger --max-share"


def _row(finding: "AuditFinding", action: str, advised: str, now: datetime) -> tuple[Any, ...]:
    orphan = finding.orphan
    return (
        *(orphan.place, str(orphan.kind), Text(orphan.name), Text(orphan.image_id), Text(finding.status)),
        *(Bytes(orphan.size), When(orphan.first_seen, now), orphan.sightings, action),
        advised,
    )


def _next(finding: "AuditFinding", action: str, refusal: str | None) -> str:
    orphan = finding.orphan
    kind, _, name = orphan.place.partition(":")
    audit = f"replica audit --{kind} {name}"
    if orphan.kind is Kind.LOST:
        return f"replica repair {orphan.image_id}"
    if action in ("removed", "asked", "changed", "failed"):
        return "-" if action == "removed" else audit
    if finding.why_kept:
        look = f"replica list {orphan.image_id}" if finding.status else "inspect it, and remove it by hand"
        return f"never removed by us, {finding.why_kept}: {look}"
    if not finding.may_go:
        return f"seen by {count(orphan.sightings, 'audit')}: later again {audit}"
    return f"{audit} --remove-dark --max-share N --yes" if refusal else f"{audit} --remove-dark --yes"
