"""Removals of copies: asked for, handed to the host that has the file, refused, done."""

import json
from collections.abc import Collection, Mapping
from datetime import timedelta

import sqlalchemy as sa

from ..database import transactions
from ..database.chunks import distinct
from ..database.dialect import clock, utc_now
from ..location import redact_text
from ..model import Location
from .schema import rows as ledger_rows
from .schema.connection import LedgerDatabase
from .schema.rows import Withdrawal
from .schema.tables import withdrawals


class Removals:
    """Part of `Ledger`."""

    database: LedgerDatabase

    def request_withdrawal(
        self,
        location: Location,
        *,
        reason: str,
        who: str,
        proof: Mapping[str, object] | None = None,
        row_only: bool = False,
    ) -> int:
        """The removal of this copy is asked for; returns its number. `proof` is anything JSON can hold.

        With `row_only` no host is asked for anything until `hand_over`: the row is the caller's to withdraw.
        """
        row = ledger_rows.whereabouts(location) | {"location_id": location.row, "row_only": row_only}
        row |= {
            "reason": transactions.clean(redact_text(reason), ledger_rows.TEXT),
            "who": transactions.clean(who, 255),
        }
        row["proof"] = None if proof is None else json.dumps(dict(proof), default=str)

        def work(connection: sa.Connection) -> int:
            done = connection.execute(withdrawals.insert().values(row | {"requested_at": clock(connection)}))
            key = done.inserted_primary_key
            assert key is not None  # one row was inserted
            return int(key[0])

        return self.database.write(work)

    def pending_withdrawals(self, host: str) -> list[Withdrawal]:
        """What this host is still asked to remove, oldest first."""
        mine = sa.and_(withdrawals.c.host == host, withdrawals.c.row_only.is_not(sa.true()))
        wanted = sa.select(withdrawals).where(mine, withdrawals.c.finished_at.is_(None))
        return [ledger_rows.withdrawal(row) for row in self.database.rows(wanted.order_by(withdrawals.c.id))]

    def hand_over(self, withdrawal_id: int, proof: Mapping[str, object] | None = None) -> None:
        """The janitor of its host is to remove the file now, and to finish the request; a `proof` replaces its own."""
        this = withdrawals.update().where(withdrawals.c.id == withdrawal_id)
        told = {} if proof is None else {"proof": json.dumps(dict(proof), default=str)}
        self.database.change(this.values(row_only=False, finished_at=None, **told))

    def refuse_withdrawal(self, withdrawal_id: int, why: str) -> None:
        """It is not done, and its proof says why not."""
        this = withdrawals.c.id == withdrawal_id

        def work(connection: sa.Connection) -> None:
            proof = connection.execute(sa.select(withdrawals.c.proof).where(this)).scalar()
            said = {"refused": transactions.clean(why, ledger_rows.TEXT)}
            told = json.dumps(ledger_rows.json_object(proof or "{}") | said)
            connection.execute(withdrawals.update().where(this).values(proof=told, finished_at=utc_now()))

        self.database.write(work)

    def finish_withdrawal(self, withdrawal_id: int) -> None:
        """It is done; the first time counts."""
        this = sa.and_(withdrawals.c.id == withdrawal_id, withdrawals.c.finished_at.is_(None))
        self.database.change(withdrawals.update().where(this).values(finished_at=utc_now()))

    def withdrawals(
        self,
        limit: int = 100,
        *,
        image_ids: Collection[str] | None = None,
        host: str | None = None,
        within_seconds: float | None = None,
        is_open: bool = False,
    ) -> list[Withdrawal]:
        """The last requests, newest first: of these images, of this host, so recent; `is_open`: not yet done."""

        def work(connection: sa.Connection) -> list[Withdrawal]:
            wanted = sa.select(withdrawals).order_by(withdrawals.c.id.desc()).limit(limit)
            if image_ids is not None:
                wanted = wanted.where(withdrawals.c.image_id.in_(sorted(set(image_ids))))
            if host is not None:
                wanted = wanted.where(withdrawals.c.host == host)
            if within_seconds is not None:
                start = clock(connection) - timedelta(seconds=within_seconds)
                wanted = wanted.where(withdrawals.c.requested_at >= start)
            if is_open:
                wanted = wanted.where(withdrawals.c.finished_at.is_(None))
            return [ledger_rows.withdrawal(row) for row in connection.execute(wanted)]

        return self.database.read(work)

    def withdrawn(self, image_ids: Collection[str]) -> dict[tuple[str, int], Withdrawal]:
        """The last request for each row of Glance's that was named in one, by (image id, row)."""
        found: dict[tuple[str, int], Withdrawal] = {}
        for part in distinct(image_ids):
            chosen = withdrawals.c.image_id.in_(part)
            wanted = sa.select(withdrawals).where(chosen, withdrawals.c.location_id.is_not(None))
            for row in self.database.rows(wanted.order_by(withdrawals.c.id)):
                found[row.image_id, row.location_id] = ledger_rows.withdrawal(row)
        return found
