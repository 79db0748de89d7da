"""`openstack image replica verify`, `copy` and `prune`: what reads copies, has hosts fetch them, and drops them."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cliff.lister import Lister

from glance_replicas.client.document import Document, Replica
from glance_replicas.errors import ConfigError, ReplicaError
from glance_replicas.ledger.prefetch_requests import PRIORITIES
from glance_replicas.location import redact
from glance_replicas.model import HOST_KEY, STORE_KEY, ZONE_KEY, Image, Location, Result
from glance_replicas.verdict import Evidence

from ...verify.summary import Summary
from ...verify.worker_pool import probe_all
from .. import advice, findings
from ..command import UNKNOWN, status_of
from ..options import values
from ..output.cells import Bytes, Text
from ..output.text import count
from .image_service import Cloud
from .osc import InCloud, worse
from .replica_api import ReplicaApi

VERIFIED = ("Image", "Name", "Kind", "Host", "Store", "Verdict", "Evidence", "Size", "Seconds", "Detail", "URL")
ASKED = ("Image", "Host", "State", "Priority", "Pin", "Bytes", "Size")
PRUNED = ("Image", "Name", "Action", "Host", "Zone", "Verdict", "URL")


class Verify(InCloud, Lister):  # type: ignore[misc, unused-ignore]
    """Read every copy of an image that a client can read, and hold it against the image's digest.

    Copies in stores are the operator's to verify (`replica verify`); --through-glance reads what Glance itself sends.
    Exit status: 0 all intact; 1 damage found; 3 something could not be checked.
    """

    example = "openstack image replica verify IMAGE --on api1"

    columns = VERIFIED

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The images, and how."""
        parser = super().get_parser(prog_name)
        add = parser.add_argument
        add("image", nargs="+", metavar="IMAGE", help="id or name")
        add("--on", metavar="HOST", help="only the copy on this host")
        add("--evidence", choices=["size", "full"], default="full", help="how deep (full)")
        add("--through-glance", action="store_true", help="also what Glance itself sends for a download")
        add("--workers", type=values.positive, default=4, metavar="N", help="verifications at a time (4)")
        text = "images without a digest do not make the exit status 3; what could not be asked still does"
        add("--allow-unverifiable", action="store_true", help=text)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """One row for each copy; the sum goes to stderr."""
        from glance_replicas.stores.sources import Sources

        site, evidence = self.site, Evidence(parsed_args.evidence)
        summary = Summary(allow_unverifiable=parsed_args.allow_unverifiable)
        items = [(image, location, evidence) for image, location in self._items(site, parsed_args, summary)]
        sources = Sources([_Copies(site), _Glance(site)])
        rows = []
        for image, result in probe_all(sources, items, parsed_args.workers):
            summary.add(image, result)
            rows.append(_verified(image, result))
            if not summary.allows(image, result) and (result.verdict.is_damage or result.verdict.is_unknown):
                self.note(advice.problem(image, result))
        self.status = worse(self.status, findings.status(summary))
        self.note(findings.total(summary))
        return VERIFIED, rows

    def _items(self, site: Cloud, parsed: argparse.Namespace, summary: Summary) -> Iterator[tuple[Image, Location]]:
        for name in parsed.image:
            found = site.document(site.find(name), {})
            image = _image(found)
            copies = [replica for replica in found.readable if parsed.on in (None, replica.host)]
            yield from ((image, _location(found, copy)) for copy in copies)
            if image.size == 0 and not copies:
                summary.empty += 1
            elif parsed.through_glance:
                yield image, Location(image.id, f"{_Glance.scheme}:{image.id}", {STORE_KEY: "Glance itself"})
            elif not copies:
                self.note(f"image {image.id}: no copy that a client can read; try --through-glance")


class _Copies:
    """Reads copies as a client does, by the URLs of the document."""

    schemes = ("http", "https")
    store = None

    def __init__(self, site: Cloud) -> None:
        self.open, self.size = site.open, site.size


class _Glance:
    """Reads Glance's own download of the image that a URL names."""

    scheme = "glance-download"
    schemes = (scheme,)
    store = None

    def __init__(self, site: Cloud) -> None:
        self._site = site

    def open(self, url: str, offset: int = 0, _stop: int | None = None) -> Any:
        """The bytes."""
        return self._site.download(url.partition(":")[2])(offset)

    def size(self, url: str) -> int | None:
        """What Glance says before it sends any."""
        with self.open(url) as body:
            return body.size  # type: ignore[no-any-return]


class Copy(InCloud, Lister):  # type: ignore[misc, unused-ignore]
    """Have hosts fetch an image, now, from the best source each has. By default only the admin may.

    Exit status: 0 asked; 1 refused, as of an image that is not active; 2 wrong usage; 3 you may not, there is no such
    host, or the image service could not be asked.
    """

    example = "openstack image replica copy IMAGE --to api1 --priority high"

    columns = ASKED

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Image and hosts."""
        parser = super().get_parser(prog_name)
        add = parser.add_argument
        add("image", nargs="+", metavar="IMAGE", help="id or name")
        add("--to", action="append", required=True, metavar="HOST", help="a host that is to have it; may be repeated")
        add("--priority", choices=list(PRIORITIES), default="normal", help="which of a host's copies goes first")
        add("--pin", action="store_true", help="the copy is never evicted")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """One row for each request."""
        orders, rows = ReplicaApi(self.session, self.site.endpoint), []
        for name in parsed_args.image:
            image_id = self.site.find(name)
            for host in parsed_args.to:
                try:
                    said = orders.fetch(image_id, host, priority=parsed_args.priority, pin=parsed_args.pin)
                except ReplicaError as error:
                    self.note(str(error))
                    self.status = worse(self.status, status_of(error))
                    continue
                told = (said.get(name) for name in ("state", "priority", "pin"))
                rows.append((image_id, host, *told, Bytes(said.get("bytes")), Bytes(said.get("size"))))
        return ASKED, rows


class Prune(InCloud, Lister):  # type: ignore[misc, unused-ignore]
    """Have hosts drop their cached copies of images. Without --yes only the plan is shown. By default the admin may.

    Copies in stores are never touched: that is `replica prune`, with its proof. The last intact copy of an image that
    is known of stays, unless an admin forces its removal and says why. Exit status: 0 asked, or only planned; 1
    refused; 2 wrong usage; 3 you may not, a named host has no copy, or the image service could not be asked.
    """

    example = "openstack image replica prune IMAGE --on api2"

    columns = PRUNED

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Images and hosts."""
        parser = super().get_parser(prog_name)
        add = parser.add_argument
        add("image", nargs="+", metavar="IMAGE", help="id or name")
        add("--on", action="append", default=[], metavar="HOST", help="a host that is to drop it; may be repeated")
        add("--all", action="store_true", help="every host that has it")
        add("--damaged", action="store_true", help="only copies that were damaged when last verified")
        text = "drop a last intact copy, too, for this reason, which is recorded; by default the admin may"
        add("--force", metavar="REASON", help=text)
        add("--yes", action="store_true", help="do it; without, only the plan is shown")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """The plan, or what was done."""
        if not (parsed_args.on or parsed_args.all or parsed_args.damaged):
            raise ConfigError("name the hosts with --on, or give --all or --damaged")
        plan = [item for name in parsed_args.image for item in self._plan(name, parsed_args)]
        orders, done = ReplicaApi(self.session, self.site.endpoint), 0
        rows = []
        for found, location in plan:
            removed = parsed_args.yes and self._remove(orders, found, location, parsed_args.force)
            done += removed
            rows.append(_pruned(found, location, "asked for" if removed else "keep" if parsed_args.yes else "remove"))
        if not plan:
            self.note("nothing to prune")
        elif parsed_args.yes:
            self.note(f"{done} of {count(len(plan), 'copy', 'copies')} asked for: each host drops it within seconds")
        else:
            self.note(f"{count(len(plan), 'copy', 'copies')} can go; nothing was done, add --yes to do it")
        return PRUNED, rows

    def _plan(self, name: str, parsed: argparse.Namespace) -> Iterator[tuple[Document, Replica]]:
        found = self.site.document(self.site.find(name), {})
        here = [replica for replica in found.replicas if replica.is_cached and replica.host]
        for host in set(parsed.on) - {replica.host for replica in here}:
            self.note(f"image {found.image_id}: no copy on host {host} that you may know of")
            self.status = worse(self.status, UNKNOWN)
        for replica in here:
            bad = replica.state is not None and replica.state.verdict.is_damage
            if (parsed.all or not parsed.on or replica.host in parsed.on) and (bad or not parsed.damaged):
                yield found, replica

    def _remove(self, orders: ReplicaApi, found: Document, replica: Replica, forced: str | None) -> bool:
        try:
            orders.remove(found.image_id, replica.host or "", forced=forced)
        except ReplicaError as error:
            self.note(str(error))
            self.status = worse(self.status, status_of(error))
            return False
        return True


def _image(found: Document) -> Image:
    return Image(found.image_id, found.status or "active", found.size, found.digest, name=found.name)


def _location(found: Document, replica: Replica) -> Location:
    facts = ((HOST_KEY, replica.host), (ZONE_KEY, replica.zone), (STORE_KEY, replica.store))
    return Location(found.image_id, replica.url, {name: value for name, value in facts if value})


def _verified(image: Image, result: Result) -> tuple[Any, ...]:
    location = result.location
    kind = "cached" if location.is_cached else "glance" if location.url.startswith(_Glance.scheme) else "durable"
    return (
        *(image.id, Text(image.name), kind, Text(location.host), Text(location.store)),
        *(str(result.verdict), str(result.evidence), Bytes(result.size), round(result.seconds, 3)),
        *(Text(result.detail or None), redact(location.url)),
    )


def _pruned(found: Document, replica: Replica, action: str) -> tuple[Any, ...]:
    verdict = str(replica.state.verdict) if replica.state else None
    return (
        *(found.image_id, Text(found.name), action, Text(replica.host), Text(replica.zone)),
        *(Text(verdict), redact(replica.url)),
    )
