"""Every check in the rules of removal is there for a reason: without it a test of the rules fails."""

import subprocess
import sys
from pathlib import Path

import pytest
from services import environment

pytestmark = pytest.mark.slow


def test_no_check_can_be_taken_out() -> None:
    """Each guard, clause, bound and filter of `causes` and `prune` is removed in turn, and noticed each time."""
    command = [sys.executable, Path(__file__).with_name("mutants.py")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-4]) > 70, "checks are no longer found"
