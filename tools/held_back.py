"""What a plan leaves alone: the missing copies of a store of which so many are missing that the store is at fault."""

from collections.abc import Callable
from fractions import Fraction

from glance_replicas.model import Location, Result
from glance_replicas.verdict import Verdict
from glance_replicas.verify.store_loss import Losses

from ..verify.worker_pool import backend

HELP = "a store of which more than this part is missing is left alone (half of it)"
WHY = "a folder that the hosts do not share, or another one mounted in its place, looks just so"
NEXT = (
    "compare the store's options, its mount (findmnt) and what is in it with other hosts (replica audit there); until "
    "then repair and prune nothing of it"
)


class HeldBack:
    """Told the last verdicts first, asked afterwards; `share` is the operator's."""

    def __init__(self, share: Fraction | None) -> None:
        self._share, self._losses = share, Losses()
        self._missing: set[tuple[str, str]] = set()  # image id and URL
        self._stores: set[str] = set()

    def see(self, location: Location, last: Result | None) -> None:
        """A location, and what the ledger says of it."""
        if last is not None and not location.is_cached:
            self._losses.add(backend(location), last.verdict)
            if last.verdict is Verdict.MISSING:
                self._missing.add((location.image_id, location.url))

    def has(self, location: Location, verdict: Verdict | None = None) -> bool:
        """Whether this location is to be left alone: missing, by the ledger or by this verdict, in a store at fault."""
        is_missing = verdict is Verdict.MISSING or (location.image_id, location.url) in self._missing
        return is_missing and not location.is_cached and backend(location) in self._stores

    def decide(self, say: Callable[[str], None]) -> bool:
        """All were seen. One line for each store that is left alone; whether there is any."""
        self._stores = self._losses.at_fault(self._share)
        for store in sorted(self._stores):
            say(
                f"{self._losses[store]}; nothing is planned against them, because {WHY}. Fix {store} first, and "
                "verify it again; then name the images, or add --max-share 100"
            )
        return bool(self._stores)
