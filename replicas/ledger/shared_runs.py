"""Verification runs that several machines share: what is verified in a run is verified once.

A process claims a place before it verifies it, for a lease that it renews. Killed at any moment it leaves claims that
expire, and results that are younger than its last `record`; whoever goes on with the run takes both up again.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from ..database import transactions
from ..database.dialect import add_missing, clock, utc_now
from ..errors import Refused
from ..model import Last, Result
from .results import record
from .schema import rows as ledger_rows
from .schema.connection import LedgerDatabase
from .schema.tables import claims, runs, states

LEASE_SECONDS = 15.0  # a process that is silent for longer has lost its claims

Key = tuple[str, str]  # image id, ledger.place_key


@dataclass(frozen=True)
class Run:
    """A run that goes on. `options` say what is verified and how deep."""

    name: str
    options: Mapping[str, object]
    started_at: datetime  # by the database's clock
    resumed: bool  # it was begun before, here or elsewhere


class Granted(NamedTuple):
    """What came of asking for claims, with the places that were asked for and cannot be had now."""

    mine: frozenset[Key]
    known: Mapping[Key, Last]  # what the ledger says of mine, read after they were claimed
    elsewhere: int  # another process has them


class SharedRuns:
    """Runs and claims in the ledger; every method raises LedgerError when it cannot be asked."""

    def __init__(self, ledger_database: LedgerDatabase) -> None:
        self._database = ledger_database

    def start(self, name: str, options: Mapping[str, object], *, who: str) -> Run:
        """The run of this name goes on: as it was begun if it has not finished, else anew from now.

        Raises Refused when one goes on with other options.
        """
        text = json.dumps(dict(options), sort_keys=True)

        def work(connection: sa.Connection) -> Run:
            _take_turns(connection, name, who)
            row = connection.execute(sa.select(runs).where(runs.c.name == name)).one()
            if row.options and row.finished_at is None:
                if row.options != text:
                    raise Refused(_other_options(name, ledger_rows.json_object(row.options), dict(options), row.who))
                return Run(name, options, row.started_at, True)
            now = clock(connection)
            begun = {"who": transactions.clean(who, 255), "options": text, "started_at": now, "finished_at": None}
            connection.execute(runs.update().where(runs.c.name == name).values(begun))
            return Run(name, options, now, False)

        return self._database.write(work)

    def finish(self, run: Run) -> bool:
        """The run is over and its name free for the next; False when it was, or has begun anew."""
        this = sa.and_(runs.c.name == run.name, runs.c.started_at == run.started_at, runs.c.finished_at.is_(None))

        def work(connection: sa.Connection) -> bool:
            return connection.execute(runs.update().where(this).values(finished_at=clock(connection))).rowcount == 1

        return self._database.write(work)

    def claim(self, owner: str, places: Collection[Key]) -> Granted:
        """Of these places those that nobody has are `owner`'s for a lease, with what is known of them.

        Whoever recorded a result before and gave its claim back did both at once, so that `known` has it.
        """
        wanted = sorted(set(places))

        def work(connection: sa.Connection) -> Granted:
            _insert(connection, owner, wanted)
            key = sa.tuple_(claims.c.image_id, claims.c.place)
            found = sa.select(claims.c.image_id, claims.c.place, claims.c.owner).where(key.in_(wanted))
            owners = {(row.image_id, row.place): row.owner for row in connection.execute(found)}
            mine = frozenset(key for key in wanted if owners.get(key) == owner)
            return Granted(mine, _known(connection, mine), len(wanted) - len(mine))

        return self._database.write(work)

    def renew(self, owner: str) -> None:
        """What `owner` has claimed is its own for another lease."""

        def work(connection: sa.Connection) -> None:
            until = clock(connection) + timedelta(seconds=LEASE_SECONDS)
            connection.execute(claims.update().where(claims.c.owner == owner).values(expires_at=until))

        self._database.write(work)

    def record(self, owner: str, results: Sequence[Result], done: Collection[Key]) -> None:
        """The results are kept as `Ledger.record` does, and these places are claimed no longer, both or neither."""

        def work(connection: sa.Connection) -> None:
            if results:
                record(connection, results)
            if done:
                key = sa.tuple_(claims.c.image_id, claims.c.place)
                connection.execute(claims.delete().where(key.in_(sorted(done)), claims.c.owner == owner))

        self._database.write(work)

    def release(self, owner: str) -> None:
        """`owner` has no claim."""
        self._database.change(claims.delete().where(claims.c.owner == owner))

    def verdicts(self, run: Run) -> dict[str, int]:
        """How many places are in which state by verifications made since the run began, whoever made them."""
        counted = sa.select(states.c.verdict, sa.func.count()).where(states.c.checked_at >= run.started_at)
        return {row[0]: row[1] for row in self._database.rows(counted.group_by(states.c.verdict))}


def _take_turns(connection: sa.Connection, name: str, who: str) -> None:
    """The run's row is there and locked, so that of two that start it one finds it begun."""
    empty = {"name": name, "who": transactions.clean(who, 255), "options": "", "started_at": clock(connection)}
    add_missing(connection, runs, [empty | {"finished_at": None}])
    connection.execute(sa.select(runs.c.name).where(runs.c.name == name).with_for_update())


def _insert(connection: sa.Connection, owner: str, wanted: Sequence[Key]) -> None:
    """Free places, and those whose lease has expired, have this owner.

    Before anything is read: MariaDB's view of the tables begins with the first plain read and must not be older.
    """
    until = clock(connection) + timedelta(seconds=LEASE_SECONDS)
    rows = [{"image_id": image_id, "place": place, "owner": owner, "expires_at": until} for image_id, place in wanted]
    expired = claims.c.expires_at < utc_now()  # no value of ours: PyMySQL takes none behind a list of rows
    if connection.dialect.name in ("mysql", "mariadb"):
        added = mysql.insert(claims)
        taken = [  # in this order: the second sees what the first did
            ("owner", sa.case((expired, added.inserted.owner), else_=claims.c.owner)),
            ("expires_at", sa.case((expired, added.inserted.expires_at), else_=claims.c.expires_at)),
        ]
        connection.execute(added.on_duplicate_key_update(taken), rows)
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    made = insert(claims)
    keys, new = list(claims.primary_key.columns), made.excluded
    values = {"owner": new.owner, "expires_at": new.expires_at}
    connection.execute(made.on_conflict_do_update(index_elements=keys, set_=values, where=expired), rows)


def _known(connection: sa.Connection, mine: Collection[Key]) -> dict[Key, Last]:
    columns = [states.c[name] for name in ("image_id", "place", "verdict", "evidence", "checked_at")]
    columns += [states.c.full_verdict, states.c.full_checked_at]
    key = sa.tuple_(states.c.image_id, states.c.place)
    rows = connection.execute(sa.select(*columns).where(key.in_(sorted(mine)))) if mine else ()
    return {(image_id, place): ledger_rows.last(*rest) for image_id, place, *rest in rows}


def _other_options(name: str, theirs: dict[str, Any], ours: dict[str, Any], who: str) -> str:
    differing = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
    shown = ", ".join(f"{key}: {theirs.get(key)} there, {ours.get(key)} here" for key in differing)
    return (
        f"run {name} was begun by {who} with other options ({shown}) and is not over; give the same options to join "
        "it, or another name to begin a new run"
    )
