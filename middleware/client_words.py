"""Every word of ours that a client may read: why a download passed the cache by, and why a request was refused.

No text of an exception goes out: it may hold paths, errors of the system, numbers and commands of the server. The
reason is logged with the image's id. What a sentence names in braces is a word of the caller's own request.
"""

import enum

from glance_replicas.cache.eviction import NoRoom
from glance_replicas.errors import ReplicaError
from glance_replicas.transfer.fill_limits import TooManyFills


class Bypass(enum.StrEnum):
    """The detail of `Cache-Status` (RFC 9211) where Glance answered without the cache."""

    NO_ROOM = "no room"
    TOO_MANY = "too many fills"
    NO_SOURCE = "the fill gave nothing"
    UNAVAILABLE = "cache unavailable"
    FAULT = "internal error"


class Alarm(enum.StrEnum):
    """What a document says of an image as a whole."""

    FOR_ALL = "no durable copy"
    FOR_OPERATORS = "no durable copy; next: replica repair {image} --yes, or --to-store STORE where no object is left"


class Refusal(enum.StrEnum):
    """What an HTTP error of ours explains."""

    NO_IMAGE = "No image found with ID {image}"  # in Glance's own words
    EMPTY = (
        "Image {image} is empty: there is nothing to download, and Metalink cannot describe it. Create an empty file "
        "instead."
    )
    NO_HOST = "No host {host} keeps copies"
    DEACTIVATED = "The requested image has been deactivated. Image data download is forbidden."  # Glance's too
    NOT_SIGNED = "No valid signature, and not from a trusted network."
    LIST_NOT_SIGNED = "No valid signature."
    NOT_COPIED = "Only active images with data and a digest are copied"
    HOST_DEAD = "Host {host} is dead: it has sent no heartbeat for too long"
    NO_LEDGER = "The request was not recorded: the replica database could not be reached"
    FAULT = "The image cache did nothing because of an error. The log of this host says why."
    NOT_NOW = (
        "Nothing was removed: this host could not find out whether image {image} keeps another intact copy. Try again; "
        "the log of this host says what is wrong."
    )
    TOO_LONG = "The body is too long"
    NO_LENGTH = "The request needs a Content-Length; a chunked body is not accepted"
    BAD_QUERY = "The query is not UTF-8"
    NO_WISHES = 'The body must be a JSON object with "priority" and "pin"'
    BAD_WISHES = '"priority" must be high, normal or low; "pin" must be true or false'
    LAST_COPY = (
        "This is the last known intact copy of image {image}: no copy in a store is intact. Put it back into a store "
        "first: replica repair {image} --to-store STORE. An admin may force the removal."
    )
    LAST_CACHED = (
        "Each copy that stays in this cache is the last known intact one of its image: no copy in a store is intact. "
        "Put it back into a store first: replica repair IMAGE --to-store STORE."
    )
    CACHE_AWAY = "The image cache or its databases did not answer: the request was done in part or not at all"
    BAD_FORCE = '"force" must be true or false'
    FORCE_IS_FOR_ADMINS = "Only an admin may force the removal of a last intact copy"
    FORCE_NEEDS_REASON = '"force" needs a "reason", which is recorded'
    LAST_OF_IMAGE = (
        "This would remove the last durable copy of image {image}, or the last intact copy that is known of, and leave "
        "only damaged ones or copies in host caches, which may vanish at any time. Copy the image to another store "
        "first, or delete the image."
    )


def bypass(error: ReplicaError) -> Bypass:
    """The word for a fault of the cache before anything was sent."""
    if isinstance(error, TooManyFills):
        return Bypass.TOO_MANY
    return Bypass.NO_ROOM if isinstance(error, NoRoom) else Bypass.UNAVAILABLE
