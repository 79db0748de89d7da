"""Whole images that Glance sends by itself, however they were asked for: a wrong one never ends well (promise 2).

The filter passes on what it does not serve: other spellings of a download, a store that was asked for, a
`Content-Range`.
"""

from collections.abc import Iterator
from typing import Any

from glance.api.v2.image_data import ImageDataController

from glance_replicas.model import Image
from glance_replicas.transfer.failover_stream import guarded

from .facts import image_of
from .routed import Handlers, Routed

GUARDED = "glance_replicas.guarded"  # in environ: whoever passed the request on holds the body against the digest


def watch(handlers: Handlers) -> None:
    """Downloads that Glance answers are held against the image's digest."""
    handlers.on(ImageDataController, "download", _download)


def _download(call: Routed) -> Any:
    found = call.proceed()
    if GUARDED in call.request.environ:
        return found
    image = image_of(found)
    return found if image.digest is None or not image.size else _Guarded(found, image)


class _Guarded:
    """Glance's image, except that all of its bytes end with the last block only if the digest agrees."""

    def __init__(self, found: Any, image: Image) -> None:
        self._found, self._image = found, image

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found, name)

    def get_data(self, offset: int = 0, chunk_size: int | None = None) -> Iterator[bytes]:
        """As Glance's; a part of the image is as it is."""
        chunks: Iterator[bytes] = iter(self._found.get_data(offset=offset, chunk_size=chunk_size))
        image, size = self._image, self._image.size or 0
        if image.digest is None or offset or (chunk_size is not None and chunk_size < size):
            return chunks
        return guarded(chunks, image.digest, size)
