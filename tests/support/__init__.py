"""What many tests stand on: clouds, hosts and images made for them, and tables of cases."""

from pathlib import Path

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
