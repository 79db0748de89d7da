"""An attack on one host that ends by itself: slow readers, ranges, bad signatures, a thousand ids, clients that leave.

    python tests/attack.py 127.0.0.2:9292 SECONDS HIT COLD

HIT is an image that the host has, COLD one that only a slow store has. Addresses of the loopback only, at low priority.
"""

import contextlib
import http.client
import os
import random
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable

HEADERS = {"X-Identity-Status": "Confirmed", "X-Roles": "member,reader", "X-Project-Id": "p1", "X-User-Id": "u1"}
PAUSE = 0.1  # seconds between two requests of one attacker: it is their kind that hurts, not their number
SLOW_READERS = 48


class Attack:
    """Threads that do harm until the time is over."""

    def __init__(self, address: str, seconds: float, hit: str, cold: str) -> None:
        self.host, _, port = address.partition(":")
        if not self.host.startswith("127."):
            raise SystemExit(f"{address}: not on the loopback")
        self.port, self.end = int(port), time.monotonic() + seconds
        self.hit, self.cold = hit, cold

    def run(self) -> None:
        """Every kind at once, until the end."""
        kinds: list[Callable[[], None]] = [self.slow] * SLOW_READERS
        kinds += [self.ranges, self.ranges, self.signatures, self.signatures, self.ids, self.leaves, self.leaves]
        threads = [threading.Thread(target=self.again, args=[kind], daemon=True) for kind in kinds]
        for one in threads:
            one.start()
        print("attacking", flush=True)
        for one in threads:
            one.join(max(0.0, self.end + 1.0 - time.monotonic()))

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
        lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        made.sendall(f"GET /v2/images/{image_id}/file HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
        return made

    def slow(self) -> None:
        """A byte now and then."""
        with self.open(self.hit) as one:
            while time.monotonic() < self.end and one.recv(1):
                time.sleep(0.5)

    def ranges(self) -> None:
        """One byte somewhere in an image that is not here."""
        self.ask(f"/v2/images/{self.cold}/file", Range=f"bytes=-{random.randrange(1, 1 << 20)}")

    def signatures(self) -> None:
        """A signature that is none."""
        self.ask(f"/replicas/{self.hit}?kid=k1&expires=4102444800&sig={random.randbytes(32).hex()}")

    def ids(self) -> None:
        """A thousand images that there are not."""
        for _ in range(1000):
            if time.monotonic() > self.end:
                return
            self.ask(f"/v2/images/{uuid.uuid4()}/file")
            time.sleep(PAUSE)

    def leaves(self) -> None:
        """A client that goes before its first byte."""
        with self.open(self.cold):
            time.sleep(0.05)


if __name__ == "__main__":
    os.nice(10)
    where, how_long, *images = sys.argv[1:]
    Attack(where, float(how_long), *images).run()
