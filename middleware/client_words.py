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
    EMPTY = "Image {image} has no bytes: there is nothing to download, and Metalink cannot say so. An empty file is it."
    NO_HOST = "There is no host {host} that keeps copies"
    DEACTIVATED = "The requested image has been deactivated. Image data download is forbidden."  # Glance's too
    NOT_SIGNED = "No valid signature, and not from a trusted network."
    LIST_NOT_SIGNED = "No valid signature."
    NOT_COPIED = "Only active images with data and a digest are copied"
    HOST_DEAD = "Host {host} is dead: it has not been heard of for too long"
    NO_LEDGER = "Nothing was asked for: the replica database could not be reached"
    FAULT = "The image cache could not answer, and did nothing. Its log says why."
    NOT_NOW = (
        "Nothing was removed: whether image {image} keeps another intact copy could not be found out just now. Try "
        "again; the log of this host says what is wrong."
    )
    TOO_LONG = "The body is too long"
    NO_LENGTH = "The body must come with its length, not in chunks"
    BAD_QUERY = "The query is not UTF-8"
    NO_WISHES = 'The body is no JSON object of "priority" and "pin"'
    BAD_WISHES = '"priority" is one of high, normal, low; "pin" is true or false'
    LAST_COPY = (
        "This is the last intact copy of image {image} that is known of: no copy in a store is. Put it back into a "
        "store first: replica repair {image} --to-store STORE. An admin may force the removal."
    )
    LAST_CACHED = (
        "What stays in this cache is the last intact copy of its image that is known of: no copy in a store is. Put it "
        "back into a store first: replica repair IMAGE --to-store STORE."
    )
    CACHE_AWAY = "The image cache or its databases could not be asked: not all of it was done, or nothing"
    BAD_FORCE = '"force" is true or false'
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
