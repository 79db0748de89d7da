"""Images at which nothing is due are left out before anything is made of their rows: there may be a million."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from glance_replicas.ledger.ledger import url_key
from glance_replicas.model import Image, Last
from glance_replicas.verify.schedule import Need

from .ahead import ahead
from .command import OnHost
from .selection import Selection


def applies(wanted: Selection, need: Need) -> bool:
    """Whether URLs alone tell what is meant; metadata, and verdicts other than those that spare, take more."""
    return need.since is not None and wanted.takes_every_location and wanted.state is None and not wanted.ids


def rest(
    command: OnHost, wanted: Selection, need: Need, skip: Callable[[int], None]
) -> Iterator[tuple[Image, Mapping[tuple[str, str], Last]]]:
    """As `OnHost.with_lasts`, without the images of which every place is spared; `skip` is told how many those were.

    The ledger itself says which places are, and only their keys are read. An image with one location that is not among
    them comes with all, to be judged one by one; so does one without any, or with none in a store.
    """
    pages = ((page, command.keys({one for one, _ in page}, need.spared)) for page in wanted.urls(command.catalogue))
    for page, spared in ahead(pages):
        due = {image_id for image_id, url in page if url is None or (image_id, url_key(url)) not in spared}
        due |= {image_id for image_id, _ in page} - {image_id for image_id, url in page if _is_durable(image_id, url)}
        skip(sum(image_id not in due for image_id, _ in page))
        if due:
            yield from command.with_lasts(replace(wanted, ids=tuple(due)), quiet=True)


def _is_durable(image_id: str, url: str | None) -> bool:
    return url is not None and not url.endswith(f"/replicas/{image_id}")
