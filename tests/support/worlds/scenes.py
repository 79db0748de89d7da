"""What the tests over real hosts begin with: an image with bytes of its own, and waiting for what will come."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

import requests
from services.glance.site import GlanceHost

_seeds = itertools.count(1)


def settle(what: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.05)


def begun_since(before: Collection[threading.Thread]) -> set[threading.Thread]:
    """Threads of this process that run and did not then; one of those may end meanwhile, and says nothing."""
    return set(threading.enumerate()) - set(before)


def fails(host: GlanceHost, image_id: str) -> bool:
    """Whether a client that downloads the image knows that it failed."""
    try:
        return host.client().download(image_id).status_code >= 500
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError):
        return True


def new_bytes(size: int) -> bytes:
    """Bytes that no other image of this run has."""
    return random.Random(next(_seeds)).randbytes(size)


def new_image(host: GlanceHost, size: int, **properties: Any) -> tuple[str, bytes]:
    """An active image of so many bytes: its id, and the bytes."""
    data = new_bytes(size)
    return str(host.client().create(data=data, **properties)["id"]), data
