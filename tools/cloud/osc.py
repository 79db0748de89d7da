"""`openstack image replica ...`: commands of OpenStackClient, for whoever has a cloud and no glance-api host.

They do what the cloud's API can do; `choose` and `save` are `replica choose` and `replica get` with OpenStackClient's
own session. Nothing of OpenStackClient is imported: it hands its session to the command.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cliff.lister import Lister
from cliff.show import ShowOne

from glance_replicas.client.document import Document, Replica
from glance_replicas.errors import ConfigError, Denied, ReplicaError, SourceError
from glance_replicas.location import redact

from ..command import DAMAGED, INTACT, UNKNOWN, status_of
from ..output.cells import Bytes, Text, seen
from ..output.formats import Columns
from . import choose, get
from .command import ClientCommand, add_place_options, asked
from .image_service import Cloud

COLUMNS = ("Image", "Name", "Priority", "Kind", "Host", "Zone", "Store", "Verdict", "Evidence", "Checked", "URL")


class InCloud(ClientCommand, Columns):
    """A command that asks the image service of the cloud the user is logged in to. `status` is its exit status."""

    auth_required = True  # OpenStackClient: log in first
    status = INTACT
    app: Any

    @property
    def site(self) -> Cloud:
        """The image service. Raises ConfigError when the cloud has none."""
        return Cloud.over(self.session, self.endpoint)

    @property
    def session(self) -> Any:
        """What authenticates."""
        return self.app.client_manager.sdk_connection.session

    @property
    def endpoint(self) -> str:
        """The image service's URL, by the catalogue or by what the user set."""
        found = self.app.client_manager.sdk_connection.endpoint_for("image")
        if not found:
            raise ConfigError("the cloud has no image service in its catalogue; set image_endpoint_override")
        return str(found)

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """IMAGE, and where the caller is; the cloud is OpenStackClient's business."""
        parser.add_argument("image", metavar="IMAGE", help="id or name")
        add_place_options(parser)
        parser.set_defaults(document=None)

    def ask(self, arguments: argparse.Namespace) -> tuple[Document, Cloud | None]:
        """The document of the image, and the cloud."""
        site = self.site
        return asked(site, arguments), site

    def note(self, text: str) -> None:
        """One line for the user on stderr."""
        self.app.stderr.write(f"{text}\n")

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Do it and return the exit status; what goes wrong is one line on stderr."""
        try:
            return super().run(parsed_args) or self.status
        except ReplicaError as error:
            self.note(str(error))
            return status_of(error)


class List(InCloud, Lister):  # type: ignore[misc, unused-ignore]
    """List the copies of images that you may know of, best first, with the last verdict on each.

    Exit status: 0 done; 2 no such image; 3 the image service could not be asked, or refused.
    """

    example = "openstack image replica list IMAGE"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Images, and a host."""
        parser = super().get_parser(prog_name)
        parser.add_argument("image", nargs="*", metavar="IMAGE", help="id or name; none: every image you see")
        parser.add_argument("--on", metavar="HOST", help="only copies on this host")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """One row for each copy, a stream."""
        return COLUMNS, self._rows(parsed_args)

    def _rows(self, parsed: argparse.Namespace) -> Iterator[tuple[Any, ...]]:
        site = self.site
        for name in parsed.image or site.images():
            try:
                found = site.document(site.find(name), {})
            except Denied:
                if parsed.image:
                    raise
                continue  # an image that is seen and may not be downloaded, as community images of others at times
            except SourceError as error:
                self.note(f"image {name}: {error}")
                self.status = UNKNOWN
                continue
            if found.alarm:
                self.note(f"image {found.image_id}: {found.alarm}")
            yield from (_row(found, replica) for replica in found.replicas if parsed.on in (None, replica.host))


class Show(InCloud, ShowOne):  # type: ignore[misc, unused-ignore]
    """Show how many copies of an image there are, where, and how they were when last verified.

    Exit status: 0 done; 2 no such image; 3 the image service could not be asked, or refused.
    """

    example = "openstack image replica show IMAGE"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The image."""
        parser = super().get_parser(prog_name)
        self.add_options(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[Any]]:
        """One field for each fact."""
        found, _ = self.ask(parsed_args)
        states = [replica.state for replica in found.replicas if replica.state]
        times = [state.checked_at for state in states if state.checked_at]
        last = next((state for state in states if times and state.checked_at == max(times)), None)
        digest = found.digest
        facts = {
            "image": found.image_id,
            "name": Text(found.name),
            "status": found.status,
            "size": Bytes(found.size),
            "digest": f"{digest.algorithm}:{digest.value}" if digest else None,
            "copies": found.total if found.total is not None else len(found.replicas),
            "hosts": ", ".join(sorted({replica.host for replica in found.replicas if replica.host})),
            "stores": ", ".join(
                sorted({replica.store or replica.kind for replica in found.replicas if replica.durable})
            ),
            "damaged": sum(state.verdict.is_damage for state in states),
            "never_looked_at": len(found.replicas) - len(states),
            "last_looked_at": seen(last),
            "alarm": Text(found.alarm),
            "best": redact(found.replicas[0].url) if found.replicas else None,
        }
        return tuple(facts), tuple(facts.values())


class Choose(InCloud, choose.Choose):
    """Show the copies of an image, best first for this machine, and why.

    Exit status: 0 done; 2 no such image; 3 the image service could not be asked, or refused.
    """

    example = "openstack image replica choose IMAGE --zone az1"


class Save(InCloud, get.Get):
    """Download an image from its best copy, verified; through Glance itself when no copy is any good.

    Exit status: 0 the file is there and intact; 1 only damaged bytes were found; 2 usage; 3 nothing could be reached.
    """

    example = "openstack image replica save IMAGE --file disk.raw"

    target_options = ("--file", "-o", "--output")


def _row(found: Document, replica: Replica) -> tuple[Any, ...]:
    state = replica.state
    return (
        *(found.image_id, Text(found.name), replica.priority, replica.kind),
        *(Text(replica.host), Text(replica.zone), Text(replica.store)),
        *(Text(state and str(state.verdict)), Text(state and str(state.evidence))),
        *(seen(state), redact(replica.url)),
    )


def worse(status: int, other: int) -> int:
    """The graver of two exit statuses."""
    return max(status, other, key=(INTACT, UNKNOWN, DAMAGED).index)
