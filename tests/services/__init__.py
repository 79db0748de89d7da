"""Real services for the tests: Glance, Swift, PostgreSQL, MariaDB, nginx and a web server with faults.

Every one listens on 127.0.0.0/8 only, on a port of its own, and ends with the process that started it.
"""

import contextlib
import http.client
import os
import random
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

__all__ = ["absent", "answers", "environment", "eventually", "free_port", "need"]

T = TypeVar("T")

PORTS = (
    10240,
    32768,
)  # a server takes seconds to start: no connection may get its port meanwhile (ip_local_port_range)

# Where Debian keeps servers beside the PATH of an ordinary user.
PLACES = ["/usr/local/sbin", "/usr/sbin", "/sbin"]


def need(program: str) -> Path:
    """The path of a program a test cannot do without: absent, the test fails in CI and skips elsewhere."""
    postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), *PLACES, *map(str, postgres)]
    found = shutil.which(program, path=os.pathsep.join(folders))
    return (
        Path(found) if found else absent(f"{program} is not installed; bin/system-packages or make setup installs it")
    )


def absent(reason: str) -> NoReturn:
    """End the test: a failure in CI, where everything has to be there, a skip on a user's machine."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that was free on this loopback address a moment ago, and that no connection gets by itself."""
    if not address.startswith(("127.", "::1", "::ffff:127.")):
        raise ValueError(f"{address} is not a loopback address")
    while True:
        port = random.SystemRandom().randrange(*PORTS)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as probe, contextlib.suppress(OSError):
            probe.bind((address, port))
            return port


def answers(address: str, port: int, path: str, method: str = "GET") -> bool:
    """Whether an HTTP server is there and sees no fault in itself."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request(method, path)
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


def eventually(answer: Callable[[], T], timeout: float = 10.0, pause: float = 0.02) -> T:
    """The first true answer; after `timeout` seconds the last one, true or not."""
    deadline = time.monotonic() + timeout
    while True:
        value = answer()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(pause)


def environment(**extra: str) -> dict[str, str]:
    """Our environment without proxies and without anything that would configure a service behind our back."""
    foreign = ("OS_", "PG", "MYSQL", "SWIFT_", "ST_", "UWSGI_", "GUNICORN_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign) and "proxy" not in k.lower()}
    return kept | {"LC_ALL": "C", "PYTHONUNBUFFERED": "1"} | extra
