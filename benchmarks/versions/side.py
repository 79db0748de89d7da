"""One of two versions that `against.py` compares: started by the Python of its clone, serves until its input ends.

    side.py CLONE hosts LAST SMALL LARGE    a host with two cached images of so many bytes, at 127.0.0.LAST
    side.py CLONE catalogue LAST NUMBER     Glance's tables and ours with so many images of ten locations

The first line of its output says where everything is, as JSON.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(sys.argv[1]) / "benchmarks"))  # of that version, as all that it measures

from clients import fetch
from stage import Stage, download, members, wait_for

import tools

CLONE, WHAT, LAST, *NUMBERS = sys.argv[1:]


def hosts(stage: Stage, small: int, large: int) -> dict[str, Any]:
    """Ours and the stock cache's, each with one worker, and what a client needs to ask for."""
    found = {}
    made = stage.hosts("replicas", "stock-cache", number=int(LAST), processes=1)
    for name, host in zip(("replicas", "stock-cache"), made, strict=True):
        ids = [stage.image(host, size) for size in (small, large)]
        for image_id in ids * 2:
            fetch([download(host, image_id)])
        found[name] = {
            "urls": [f"{host.url}/v2/images/{image_id}/file" for image_id in ids],
            "headers": dict(host.client().identity),
            "pids": members(host.process.pid),
        }
    ours = made[0]
    signed: list[str] = []

    def is_signed() -> bool:
        text = ours.client().request("GET", f"/v2/images/{found['replicas']['urls'][0].split('/')[-2]}/replicas").text
        signed[:] = [word for word in json.dumps(json.loads(text)).split('"') if "sig=" in word and ours.url in word]
        return bool(signed)

    wait_for(is_signed)
    found["replicas"]["per-host URL"] = signed[0]
    return found


def catalogue(stage: Stage, number: int) -> dict[str, Any]:
    """Rows alone, all of them verified a moment ago."""
    host = stage.site.add_host(f"127.0.0.{LAST}", start=False)
    tools.fill(stage, number)
    return {"configuration": str(host.config_file)}


def main() -> None:
    """Serve until the input ends."""
    kinds: dict[str, Callable[..., dict[str, Any]]] = {"hosts": hosts, "catalogue": catalogue}
    os.chdir(CLONE)
    with Stage() as stage:
        found = kinds[WHAT](stage, *map(int, NUMBERS))
        print(json.dumps(found | {"database": stage.site.database_url}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
