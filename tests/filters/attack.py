"""An attack on one host that ends by itself: a thousand ids at once, slow readers, ranges, bad signatures, leavers.

    python tests/filters/attack.py 127.0.0.2:9292 SECONDS IDS HIT COLD

IDS is a file with a thousand ids of images, there or not: all are asked for at once, and where one is answered another
is asked for, `RATE` a second. HIT is an image that the host has, COLD one that only a slow store has. Addresses of the
loopback only, at the lowest priority. It ends with its input, too, and says then what the thousand were answered.
"""

import collections
import contextlib
import http.client
import itertools
import json
import os
import random
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

HEADERS = {"X-Identity-Status": "Confirmed", "X-Roles": "member,reader", "X-Project-Id": "p1", "X-User-Id": "u1"}
PAUSE = 0.1  # seconds between two requests of one attacker: it is their kind that hurts, not their number
SLOW_READERS = 48
RATE = 10  # requests a second of the thousand, once each has been asked
LINES = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())


def download(image_id: str) -> bytes:
    """The request for its bytes."""
    return f"GET /v2/images/{image_id}/file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{LINES}\r\n".encode()


class Thousand:
    """A connection for each id, all open at once, in one thread that waits for all of them."""

    def __init__(self, address: tuple[str, int], ids: list[str]) -> None:
        self.address, self.first, self.ids = address, len(ids), itertools.cycle(ids)
        self.selector = selectors.DefaultSelector()
        self.answers: collections.Counter[str] = collections.Counter()
        self.open: set[socket.socket] = set()
        self.most = 0

    def ask(self) -> None:
        """One more connection."""
        made = socket.create_connection(self.address, timeout=5)  # the kernel's queue takes it, whoever is busy
        made.sendall(download(next(self.ids)))
        made.setblocking(False)
        self.open.add(made)
        self.most = max(self.most, len(self.open))
        self.selector.register(made, selectors.EVENT_READ, [b""])

    def run(self, end: float, begun: Callable[[], None]) -> None:
        """All at once, then as many as are answered, at their rate, until the end."""
        for _ in range(self.first):
            self.ask()
        begun()
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        due = time.monotonic()
        while time.monotonic() < end:
            for key, _events in self.selector.select(1 / RATE):
                if key.fileobj is sys.stdin:
                    return
                self.answered(key)
            if len(self.open) < self.first and time.monotonic() >= due:
                due = max(due, time.monotonic() - 1) + 1 / RATE
                with contextlib.suppress(OSError):
                    self.ask()

    def answered(self, key: selectors.SelectorKey) -> None:
        """Some bytes; at their end the connection is over."""
        made, begin = key.fileobj, key.data
        assert isinstance(made, socket.socket)
        data = b""
        with contextlib.suppress(OSError):
            data = made.recv(1 << 16)
        begin[0] = begin[0] or data[:12]
        if not data:
            self.selector.unregister(made)
            self.open.discard(made)
            made.close()
            self.answers[begin[0][9:].decode() or "nothing"] += 1


class Attack:
    """Threads that do harm until the time is over."""

    def __init__(self, address: str, seconds: float, hit: str, cold: str) -> None:
        self.host, _, port = address.partition(":")
        if not self.host.startswith("127."):
            raise SystemExit(f"{address}: not on the loopback")
        self.port, self.end = int(port), time.monotonic() + seconds
        self.hit, self.cold = hit, cold

    def run(self, ids: list[str]) -> None:
        """Every kind at once, until the end."""
        kinds: list[Callable[[], None]] = [self.slow] * SLOW_READERS
        kinds += [self.ranges, self.ranges, self.signatures, self.signatures, self.leaves, self.leaves]
        threads = [threading.Thread(target=self.again, args=[kind], daemon=True) for kind in kinds]
        thousand = Thousand((self.host, self.port), ids)

        def begun() -> None:
            print("attacking", flush=True)
            for one in threads:  # after the thousand, for whom a server's queue has room
                one.start()

        thousand.run(self.end, begun)
        print(json.dumps({"most": thousand.most, "open": len(thousand.open), **thousand.answers}), flush=True)

    def again(self, kind: Callable[[], None]) -> None:
        """One kind over and over."""
        while time.monotonic() < self.end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                kind()
            time.sleep(PAUSE)

    def ask(self, path: str, **headers: str) -> None:
        """One request, its answer thrown away."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", path, headers=HEADERS | headers)
            connection.getresponse().read(4096)
        finally:
            connection.close()

    def open(self, image_id: str) -> socket.socket:
        """A download that was asked for and not read."""
        made = socket.socket()
        made.settimeout(5)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # or the kernel takes the whole body for us
        made.connect((self.host, self.port))
        made.sendall(download(image_id))
        return made

    def slow(self) -> None:
        """A byte now and then."""
        with self.open(self.hit) as one:
            one.settimeout(30)  # behind the thousand
            while time.monotonic() < self.end and one.recv(1):
                time.sleep(0.5)

    def ranges(self) -> None:
        """One byte somewhere in an image that is not here."""
        self.ask(f"/v2/images/{self.cold}/file", Range=f"bytes=-{random.randrange(1, 1 << 20)}")

    def signatures(self) -> None:
        """A signature that is none."""
        self.ask(f"/replicas/{self.hit}?kid=k1&expires=4102444800&sig={random.randbytes(32).hex()}")

    def leaves(self) -> None:
        """A client that goes before its first byte."""
        with self.open(self.cold):
            time.sleep(0.05)


if __name__ == "__main__":
    os.nice(19)
    where, how_long, file, *images = sys.argv[1:]
    Attack(where, float(how_long), *images).run(Path(file).read_text().split())
