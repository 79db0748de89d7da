"""Results of long ago: the ledger records by its own clock only, so their moments are written behind its back."""

from collections.abc import Sequence
from itertools import groupby

import sqlalchemy as sa

from glance_replicas.database.chunks import chunks
from glance_replicas.ledger.ledger import Ledger, place_key
from glance_replicas.ledger.schema.tables import checks, states
from glance_replicas.model import Result
from glance_replicas.verdict import Evidence


def record(ledger: Ledger, results: Sequence[Result]) -> None:
    """In this order, each as of its `checked_at`."""
    for at, group in groupby(results, key=lambda one: one.checked_at):
        same, mark = list(group), ledger.last_recorded()
        ledger.record(same)
        ledger.database.change(checks.update().where(checks.c.id > mark).values(checked_at=at))
        for part in chunks(same):
            ledger.database.change(states.update().where(_are(part)).values(checked_at=at))
            full = [one for one in part if one.evidence is Evidence.FULL and not one.verdict.is_unknown]
            if full:
                ledger.database.change(states.update().where(_are(full)).values(full_checked_at=at))


def _are(results: Sequence[Result]) -> sa.ColumnElement[bool]:
    keys = {(one.location.image_id, place_key(one.location)) for one in results}
    return sa.tuple_(states.c.image_id, states.c.place).in_(sorted(keys))
