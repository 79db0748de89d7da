"""Images of which every location is fresh are skipped before anything is made of their rows: there may be a million."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ..catalogue.selection import Selection
from ..ledger.best_effort import BestEffortLedger, Lasts
from ..ledger.schema.rows import url_key
from ..ledger.schema.tables import states
from ..model import Image, is_on_host
from ..read_ahead import read_ahead
from ..verdict import Evidence, Verdict
from .schedule import Schedule

if TYPE_CHECKING:
    from ..catalogue.images import Catalogue


def applies(selection: Selection, schedule: Schedule) -> bool:
    """Whether URLs alone tell what is meant; metadata, and verdicts other than those that are fresh, take more."""
    is_whole = selection.takes_every_location and selection.state is None and not selection.ids
    return schedule.since is not None and is_whole


def images(
    catalogue: "Catalogue",
    ledger: BestEffortLedger,
    selection: Selection,
    schedule: Schedule,
    skip: Callable[[int], None],
) -> Iterator[tuple[Image, Lasts]]:
    """As `BestEffortLedger.with_lasts`, without images of which every location is fresh; `skip` is told their number.

    The ledger itself says which are, and only their keys are read. An image with one location that is not among them
    comes with all, to be judged one by one; so does one without any, or with none in a store.
    """
    condition = is_fresh(schedule)
    pages = ((page, ledger.keys({image_id for image_id, _ in page}, condition)) for page in selection.urls(catalogue))
    for page, fresh in read_ahead(pages):
        due = {image_id for image_id, url in page if url is None or (image_id, url_key(url)) not in fresh}
        due |= {image_id for image_id, _ in page} - {image_id for image_id, url in page if _is_durable(image_id, url)}
        skip(sum(image_id not in due for image_id, _ in page))
        if due:
            yield from ledger.with_lasts(replace(selection, ids=tuple(due)).images(catalogue, _ignore))


def is_fresh(schedule: Schedule) -> sa.ColumnElement[bool]:
    """What `Schedule.is_fresh` says, as a condition on rows of `replica_states`."""
    row, is_intact = states.c, states.c.verdict == str(Verdict.INTACT)
    if schedule.since is None:
        return sa.false()
    if schedule.run:
        counts = sa.or_(row.evidence == str(Evidence.FULL), sa.not_(is_intact))
        is_deep = sa.true() if schedule.evidence is not Evidence.FULL else counts
        return sa.case((is_deep, row.checked_at), else_=row.full_checked_at) >= schedule.since
    deep = row.evidence.in_([str(evidence) for evidence in Evidence if evidence.depth >= schedule.evidence.depth])
    good = [str(verdict) for verdict in schedule.good]
    differs = sa.and_(row.verdict == str(Verdict.UNVERIFIABLE), row.evidence == str(Evidence.SAMPLE))
    hidden = sa.and_(is_intact, row.evidence != str(Evidence.FULL), row.full_verdict == str(Verdict.CORRUPT))
    stands = sa.and_(row.verdict.in_(good), sa.not_(differs), sa.or_(row.full_verdict.is_(None), sa.not_(hidden)))
    at = sa.case((deep, row.checked_at), (row.full_verdict.in_(good), row.full_checked_at), else_=sa.null())
    return sa.and_(stands, at.between(schedule.since, schedule.now))


def _is_durable(image_id: str, url: str | None) -> bool:
    return url is not None and not is_on_host(url, image_id)


def _ignore(_text: str) -> None:
    """An image that was deleted meanwhile."""
