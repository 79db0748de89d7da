"""Hostile input, a bounded part of `make fuzz`: each target with bytes that hypothesis chooses."""

import pytest
from fuzzing.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_EXAMPLES = 400


@pytest.mark.parametrize("name", TARGETS)
def test_holds(name: str) -> None:
    """Nothing that comes over the wire, out of the database or out of a file breaks what must hold for it."""
    target = TARGETS[name]

    @settings(max_examples=_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=256))
    def holds(data: bytes) -> None:
        target(data)

    holds()
