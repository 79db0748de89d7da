"""What the ledger knows of the copies of some images, for the rule of the last copy. Reads only."""

from collections.abc import Collection
from datetime import timedelta

import sqlalchemy as sa

from ..database.chunks import distinct
from ..database.dialect import clock
from ..ledger.schema import rows
from ..ledger.schema.connection import LedgerDatabase
from ..ledger.schema.tables import checks, hosts, states, withdrawals
from ..model import Last, is_on_host
from ..verdict import Verdict
from .last_copy import Key, LedgerFacts

UNDER_WAY_SECONDS = 600.0  # many times what may pass between the note of a removal and the decision about it

_DAMAGE = [str(verdict) for verdict in Verdict if verdict.is_damage]
_JUDGED = [str(verdict) for verdict in Verdict if not verdict.is_unknown]
_LAST = [states.c[name] for name in ("image_id", "place", "verdict", "evidence", "checked_at")]
_LAST += [states.c.full_verdict, states.c.full_checked_at]
_MAYBE_DAMAGED = sa.or_(states.c.verdict != str(Verdict.INTACT), states.c.full_verdict.in_(_DAMAGE))


_MAY_BE_STORES = sa.or_(states.c.host.is_(None), states.c.url.not_like("http%/replicas/%"))


class KnownCopies:
    """Every method raises LedgerError when the ledger cannot be asked. Safe for threads and after a fork."""

    def __init__(self, database: LedgerDatabase, alive_seconds: float = 0.0) -> None:
        self._database, self._alive_seconds = database, alive_seconds

    def of(self, image_ids: Collection[str], but: int | None = None) -> LedgerFacts:
        """All that is known of these images. `but` is the number of the removal that is to be decided.

        Somebody who has noted a removal before he asks sees every other that was noted before it was decided.
        """

        def work(connection: sa.Connection) -> LedgerFacts:
            now = clock(connection)
            since = now - timedelta(seconds=self._alive_seconds)
            living = connection.execute(sa.select(hosts.c.name, hosts.c.url).where(hosts.c.heartbeat > since))
            open_since = now - timedelta(seconds=UNDER_WAY_SECONDS)
            lasts: dict[Key, Last] = {}
            going: set[Key] = set()
            for part in distinct(image_ids):
                lasts |= _lasts(connection, states.c.image_id.in_(part))
                going |= _going(connection, part, open_since, but)
            return LedgerFacts(lasts, frozenset(going), {row.name: row.url for row in living})

        return self._database.read(work)

    def doubtful_stores(self, image_ids: Collection[str]) -> dict[Key, Last]:
        """Of these images the durable places that are not known to be good: few rows, of one query for 500 images.

        What of a place is durable the URL decides (`model.is_on_host`): a host that an earlier version noted does not.
        """

        def work(connection: sa.Connection) -> dict[Key, Last]:
            found = dict[Key, Last]()
            for part in distinct(image_ids):
                found |= _lasts(connection, sa.and_(states.c.image_id.in_(part), _MAY_BE_STORES, _MAYBE_DAMAGED))
            return found

        return self._database.read(work)


def _lasts(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> dict[Key, Last]:
    """What is known of these places; of a store that did not answer, what was known before."""
    found, silent = dict[Key, Last](), set[Key]()
    for image_id, place, *rest, url in connection.execute(sa.select(*_LAST, states.c.url).where(condition)):
        last = found[image_id, place] = rows.last(*rest)
        if last.verdict.is_unknown and not is_on_host(url, image_id):
            silent.add((image_id, place))
    return found | (_judged(connection, silent, found) if silent else {})


def _judged(connection: sa.Connection, keys: set[Key], known: dict[Key, Last]) -> dict[Key, Last]:
    """The same places with the last verdict that the history has of each."""
    columns = [checks.c[name] for name in ("image_id", "place", "verdict", "evidence", "checked_at")]
    ids, places = ({key[number] for key in keys} for number in (0, 1))
    wanted = sa.select(*columns).where(checks.c.image_id.in_(ids), checks.c.place.in_(places))
    found: dict[Key, Last] = {}
    for image_id, place, *last in connection.execute(wanted.where(checks.c.verdict.in_(_JUDGED)).order_by(checks.c.id)):
        if (key := (image_id, place)) in keys:
            verdict, evidence, at = last
            full = known[key]
            found[key] = rows.last(verdict, evidence, at, full.full_verdict, full.full_checked_at)
    return found


def _going(connection: sa.Connection, ids: list[str], since: object, but: int | None) -> set[Key]:
    """Cached copies that a host is asked to remove, or that somebody is just deciding about."""
    table = withdrawals.c
    is_open = sa.and_(table.finished_at.is_(None), table.host.is_not(None), table.image_id.in_(ids))
    counts = sa.or_(table.row_only.is_not(sa.true()), table.requested_at >= since)
    wanted = sa.select(table.image_id, table.place).where(is_open, counts)
    if but is not None:
        wanted = wanted.where(table.id != but)
    return {(image_id, place) for image_id, place in connection.execute(wanted)}
