"""The demo is a test: every step shows what it should, and nothing is left running."""

import os
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


def started(run_folder: Path, log: Path) -> "subprocess.Popen[bytes]":
    """The demo, running."""
    with log.open("wb") as output:
        command = [sys.executable, str(DEMO)]
        return subprocess.Popen(command, env=environment(DEMO_RUN=str(run_folder)), stdout=output, stderr=output)


def test_demo(run_folder: Path, tmp_path: Path) -> None:
    """All steps of `make demo` show what they should; its folder is gone afterwards."""
    demo = started(run_folder, tmp_path / "log")
    assert demo.wait(900) == 0, (tmp_path / "log").read_text()[-6000:]
    assert "All steps showed what they should" in (tmp_path / "log").read_text()
    assert not run_folder.exists()


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
