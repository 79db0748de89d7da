"""Who may read locations and cached copies, and who must not."""

from .facts import Facts
from .finding import ERROR, WARNING, Finding, Findings

SHORT_SECRET = 32  # characters


def _exposure(facts: Facts) -> Findings:
    if facts.show_multiple_locations:
        yield Finding(
            WARNING,
            "show_multiple_locations is on",
            "everyone who sees an image sees every URL of it, credentials included (OSSN-0065, OSSN-0090)",
            "set show_multiple_locations = False; the replicas call needs it no more",
        )


def _readers(facts: Facts) -> Findings:
    if not facts.secret_lengths and not facts.trusted_networks:
        yield Finding(
            ERROR,
            "neither signing_keys nor trusted_networks is set",
            "nobody may read the cached copies of this host: every request gets 403",
            "on every host, the same line: [replicas] signing_keys = k1:$(openssl rand -hex 32)",
        )
    for number, length in enumerate(facts.secret_lengths, 1):
        if length < SHORT_SECRET:
            yield Finding(
                WARNING,
                f"signing_keys: the secret of entry {number} has {length} characters",
                "who guesses it reads every cached image",
                f"use {SHORT_SECRET} characters or more: openssl rand -hex 32",
            )


RULES = (_exposure, _readers)
