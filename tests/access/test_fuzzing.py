"""Hostile input, a bounded part of `make fuzz`: each target with bytes that hypothesis chooses."""

import base64

import pytest
from fuzzing.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.slow

_EXAMPLES = 400
# Inputs that `make fuzz` found to break a target, by the target.
_BROKE = [
    # a method that is a lone surrogate was an exception
    (
        "signatures",
        "CAsAAAAAAFEAJWNjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2MlAP////////////////////8AAAAAAA==",
    ),
]


@pytest.mark.parametrize("name", TARGETS)
def test_holds(name: str) -> None:
    """Nothing that comes over the wire, out of the database or out of a file breaks what must hold for it."""
    target = TARGETS[name]

    @settings(max_examples=_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=256))
    def holds(data: bytes) -> None:
        target(data)

    holds()


@pytest.mark.parametrize(("name", "data"), _BROKE)
def test_what_broke_once_holds(name: str, data: str) -> None:
    """What broke a target in a longer run does no more."""
    TARGETS[name](base64.b64decode(data))
