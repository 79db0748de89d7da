"""From Glance's words to ours: an image as the domain layer hands it out, a path as a request names it."""

import re
from datetime import UTC, datetime
from typing import Any

from glance_replicas import checksum
from glance_replicas.model import Image, Location, is_image_id

_IMAGE_PATH = re.compile(r"/v2/images/([^/]+)(/file)?")


def image_of(found: Any) -> Image:
    """Our Image of a `glance.domain.Image`, its locations in Glance's order (by store weight)."""
    locations = tuple(
        Location(found.image_id, location["url"], dict(location.get("metadata") or {}), location.get("id"))
        for location in found.locations
    )
    return Image(
        id=found.image_id,
        status=found.status,
        size=found.size,
        digest=checksum.expected(found.os_hash_algo, found.os_hash_value, found.checksum),
        locations=locations,
        name=found.name,
        owner=found.owner,
        visibility=found.visibility,
        checksum=found.checksum,
        created_at=_aware(found.created_at),
    )


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def image_path(path: str) -> tuple[str, bool] | None:
    """The image id of `/v2/images/{id}` or `/v2/images/{id}/file`, and whether it is the file; None for the rest."""
    match = _IMAGE_PATH.fullmatch(path)
    if match is None or not is_image_id(match.group(1)):
        return None
    return match.group(1), match.group(2) is not None
