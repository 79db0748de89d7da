"""Rows of our tables and the facts they stand for, both ways."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ...database.transactions import clean
from ...location import redact, redact_text, where
from ...model import HOST_KEY, Host, Last, Location, Result
from ...verdict import Evidence, Verdict

TEXT = 2000  # characters kept of a text that came from elsewhere
_VERDICTS = {str(word): word for word in Verdict}
_EVIDENCES = {str(word): word for word in Evidence}


@dataclass(frozen=True)
class Withdrawal:
    """A request to remove one copy; `finished_at` is None until its row and its bytes are gone."""

    id: int
    image_id: str
    url: str  # redacted
    host: str | None  # None: durable
    reason: str
    who: str
    proof: Mapping[str, object] | None
    requested_at: datetime  # UTC, aware
    finished_at: datetime | None
    row: int | None = None  # of Glance's `image_locations`, where that was known
    place: str = ""  # place_key of the copy
    row_only: bool = False  # nothing for the janitor of the host, or not yet


@dataclass(frozen=True)
class FillClaim:
    """A host that is filling an image just now."""

    host: str
    url: str
    age_seconds: float  # since it was last renewed, by the database's clock
    bytes: int  # bytes written so far, as of then


def place_key(location: Location) -> str:
    """Sha256 in hex of what identifies a copy: two names of one copy have one key."""
    return url_key(location.url)


def url_key(url: str) -> str:
    """The same of a location's URL, which is all that tells its place."""
    return hashlib.sha256(f"\n{where(url)}".encode("utf-8", "surrogatepass")).hexdigest()


def check_row(seen: Result, now: datetime) -> dict[str, Any]:
    """A row of the history, as of `now` by the database's clock."""
    return whereabouts(seen.location) | {
        "verdict": seen.verdict.value,
        "evidence": seen.evidence.value,
        "detail": clean(redact_text(seen.detail), TEXT),
        "size": seen.size,
        "seconds": seen.seconds,
        "checked_at": now,
    }


def whereabouts(location: Location) -> dict[str, Any]:
    """The columns that say which copy is meant. Users may write any metadata, so a host may be any text."""
    url, host_name = clean(redact(location.url), TEXT), location.host and clean(location.host, 255)
    return {"image_id": location.image_id, "place": place_key(location), "url": url, "host": host_name}


def _location(row: Any) -> Location:
    return Location(row.image_id, row.url, {HOST_KEY: row.host} if row.host else {})


def result(row: Any) -> Result:
    """A row of the history or a state."""
    verdict, evidence = Verdict(row.verdict), Evidence(row.evidence)
    return Result(_location(row), verdict, evidence, row.detail, row.checked_at, row.seconds, row.size)


def state(row: Any) -> Result:
    """The latest result of a location; but what a full verification found corrupt stays so until the next one."""
    last = result(row)
    if row.full_verdict == Verdict.CORRUPT and last.verdict is Verdict.INTACT and last.evidence is not Evidence.FULL:
        return replace(full_result(row), detail=f"a later verification by {last.evidence} found nothing wrong")
    return last


def full_result(row: Any) -> Result:
    """What a state says of the last verification that read every byte."""
    return Result(_location(row), Verdict(row.full_verdict), Evidence.FULL, checked_at=row.full_checked_at)


def last(verdict: str, evidence: str, at: datetime, full_verdict: str | None, full_at: datetime | None) -> Last:
    """What a state says, in short: there may be millions."""
    full = _VERDICTS.get(full_verdict, Verdict.UNKNOWN) if full_verdict else None
    known = _VERDICTS.get(verdict, Verdict.UNKNOWN), _EVIDENCES.get(evidence, Evidence.SIZE)
    return Last(*known, at, full, full_at)


def host(row: Any, now: datetime) -> Host:
    """A host as it was at its last heartbeat."""
    numbers = (row.files, row.bytes_used, row.bytes_free)
    return Host(row.name, row.zone, row.url, row.heartbeat, *numbers, age_seconds=age(row.heartbeat, now))


def fill(row: Any, now: datetime) -> FillClaim:
    """A fill as its host last reported it."""
    return FillClaim(row.host, row.url, age(row.renewed_at, now), row.bytes)


def withdrawal(row: Any) -> Withdrawal:
    """One request."""
    proof = None if row.proof is None else json_object(row.proof)
    what = (row.id, row.image_id, row.url, row.host, row.reason, row.who, proof)
    return Withdrawal(*what, row.requested_at, row.finished_at, row.location_id, row.place, bool(row.row_only))


def json_object(text: str) -> dict[str, Any]:
    """What a column of ours holds as JSON; nothing where it is none, or no object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def age(moment: datetime, now: datetime) -> float:
    """Seconds since a moment."""
    return max(0.0, (now - moment).total_seconds())
