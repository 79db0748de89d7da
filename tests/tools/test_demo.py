"""The demo is a test: every step shows what it should, and nothing is left running."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from services import absent, environment, eventually, need
from services.process import members
from support import ROOT

pytestmark = pytest.mark.slow

DEMO = ROOT / "demo" / "run.py"
ISO = Path("/usr/lib/grub-rescue/grub-rescue-cdrom.iso")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Where the demo works; the test ends or skips when a Debian package it needs is not there."""
    need("qemu-img")
    need("curl")
    if not ISO.exists():
        absent("grub-rescue-pc is not installed; bin/system-packages installs it")
    return tmp_path / "run"


def started(run_folder: Path, log: Path, keep: str = "") -> "subprocess.Popen[bytes]":
    """The demo, running."""
    with log.open("wb") as output:
        command = [sys.executable, str(DEMO)]
        settings = environment(DEMO_RUN=str(run_folder), KEEP=keep)
        return subprocess.Popen(command, env=settings, stdout=output, stderr=output)


ENDING = """
import sys
sys.path.insert(0, sys.argv[1])
import run
demo = run.Demo(keep=False)
demo.run = demo.start
sys.exit(run._guarded(demo))
"""


def test_demo(run_folder: Path) -> None:
    """When its steps are done, here the first alone, the hosts have ended and its folder is gone."""
    command = [sys.executable, "-c", ENDING, str(DEMO.parent)]
    settings = environment(DEMO_RUN=str(run_folder))
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=300, check=True)
    assert "nothing is left" in done.stdout
    assert not run_folder.exists()


def test_tutorial(run_folder: Path, tmp_path: Path) -> None:
    """All steps of `make demo KEEP=1` show what they should, then all commands of docs/tutorial.md on its hosts."""
    log = tmp_path / "log"
    try:
        assert started(run_folder, log, keep="1").wait(900) == 0, log.read_text()[-6000:]
        assert "All steps showed what they should" in log.read_text()
        given = dict(re.findall(r"^ +export (API1|API2|LARGE)=(\S+)$", log.read_text(), re.MULTILINE))
        blocks = re.findall(r"^```console\n\$ (.*?)\n```$", (ROOT / "docs" / "tutorial.md").read_text(), re.M | re.S)
        function, *steps = (block.partition("\n") for block in blocks)
        assert len(steps) >= 12
        for command, _, printed in steps:
            shell = environment(**given, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
            found = said(f"{function[0]}\n{command}", run_folder, shell)
            if command.startswith("replica list"):  # a row comes, or goes, a moment after the last byte
                eventually(lambda: stable(said(f"{function[0]}\n{command}", run_folder, shell)) == stable(printed))  # noqa: B023
                found = said(f"{function[0]}\n{command}", run_folder, shell)
            assert stable(found) == stable(printed), f"{command}\n{found}"
    finally:
        stop = [sys.executable, str(DEMO), "--stop"]
        subprocess.run(stop, env=environment(DEMO_RUN=str(run_folder)), check=True, timeout=60)


def said(script: str, folder: Path, shell: dict[str, str]) -> str:
    """What a shell prints, of either kind."""
    command = ["bash", "-c", script]
    done = subprocess.run(command, cwd=folder, env=shell, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr


def stable(text: str) -> list[str]:
    """The lines less what differs from run to run: order of rows, ids, digests, folders, ports, hosts as good."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "IMAGE", text)
    text = re.sub(r"file://\S+/store/", "file://DEMO/store/", re.sub(r"[0-9a-f]{12}\.\.\.", "HEX...", text))
    text = re.sub(r"from the one cached on .*?/IMAGE", "from a cached one", text)
    text = re.sub(r"(http://127\.0\.0\.[23]):\d+/", r"\1:9292/", text)  # another port where that one is taken
    return sorted(text.strip().splitlines())


def test_killed_demo_leaves_nothing(run_folder: Path, tmp_path: Path) -> None:
    """SIGKILL to the demo ends its servers and their workers."""
    with started(run_folder, tmp_path / "log") as demo:
        logs = [run_folder / "api1.log", run_folder / "api2.log"]
        assert eventually(
            lambda: all(log.exists() and "spawned uWSGI worker 2" in log.read_text() for log in logs), timeout=90
        )
        pids = run_folder / "pids"
        groups = [int(line.split()[0]) for line in pids.read_text().splitlines()]
        os.kill(demo.pid, signal.SIGKILL)
    assert eventually(lambda: not any(members(group) for group in groups), timeout=60, pause=0.5)
