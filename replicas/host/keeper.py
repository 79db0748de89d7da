"""One host's copies: its directory, Glance's catalogue and the ledger joined. The filters and the janitor use it.

Every fault of catalogue, ledger or a peer ends here as a log line and the next best thing (promise 3).
"""

import logging
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial

from .. import location
from ..cache import Cache, Copy
from ..cache.eviction import NoRoom, Space
from ..cache.partial_file import Growing
from ..cache.statistics import Activity
from ..catalogue.images import Catalogue
from ..crash_points import crash_points
from ..errors import CacheError, CatalogueError, ConfigError, Gone, Refused, Unreadable
from ..ledger.host_registry import Hosts, is_alive
from ..ledger.ledger import Ledger
from ..ledger.pins import Pins
from ..ledger.usage import Uses
from ..model import HOST_KEY, IMAGE_ACTIVE, STORE_KEY, ZONE_KEY, Evidence, Image, Location, Result, Verdict
from ..removal.keeping import Keeping
from ..removal.orders import RemovalOrders
from ..settings import Settings
from ..transfer.fill import Plan
from ..transfer.fill_limits import FillLimits
from ..transfer.source_selection import Route
from .pin_sync import Pinning
from .standing import Standing

log = logging.getLogger(__name__)


class Keeper:
    """What one host does with images; thread-safe. `settings.cache_dir` must be set."""

    def __init__(self, settings: Settings) -> None:
        if settings.cache_dir is None:
            raise ConfigError("image_cache_dir is not set: nothing can be cached on this host")
        self.settings = settings
        self.cache = Cache(settings.cache_dir)
        self.catalogue = Catalogue(settings.database, settings.encryption_key)
        self.ledger = Ledger(settings.ledger)
        self.removals = RemovalOrders(self.catalogue, self.ledger, settings)
        self.pins = Pins(self.ledger.database)
        self.pinning = Pinning(settings, self.cache, self.pins, self.catalogue)
        self.hosts = Hosts(settings, self.ledger)
        self.keeping = Keeping(self.catalogue, self.ledger, self.hosts, self.cache)
        self.standing = Standing(settings, self.cache, self.hosts, partial(is_alive, settings=settings))
        self.uses = Uses(self.ledger.database)
        self.activity = Activity()
        self.fill_limits = FillLimits(self.cache, settings.max_client_fills, settings.max_client_fills_per_project)
        self.route = Route(settings, self.hosts, self.ledger, self.catalogue)
        self.space = Space(
            self.cache,
            settings.max_bytes,
            settings.min_free_bytes,
            high_percent=settings.high_watermark_percent,
            low_percent=settings.low_watermark_percent,
            elsewhere=self.route.held_elsewhere,
            kept=self.keeping.kept,
        )

    def plan(self, image: Image, *, background: bool = False) -> Plan:
        """How this host fetches an image. Raises Refused when there is nothing to hold a copy against.

        With `background` other hosts, too, take their time.
        """
        if image.digest is None or not image.size:
            raise Refused(f"image {image.id} has no digest or no size: a copy of it could not be verified")
        return Plan(
            image=image,
            size=image.size,
            digest=image.digest,
            sources=partial(self.route.order, image, True),
            detour=partial(self.route.order, image, False),
            opener=partial(self.route.open, background),
            reserve=self._reserve,
            committed=self.verified,
            condemned=self._condemned,
            renew=partial(self.route.renew, image),
            ended=partial(self._ended, image),
            stall_seconds=self.settings.stall_timeout_seconds,
            max_seconds=self.settings.max_fill_seconds,
        )

    def active(self, image_id: str) -> Image | None:
        """The image when it is active; None when it is not, or has no row. Raises CatalogueError."""
        image = self.catalogue.image(image_id)
        return image if image is not None and image.status == IMAGE_ACTIVE else None

    @crash_points
    def verified(self, image: Image) -> bool:
        """Every byte of this host's complete file was read just now, and agreed: a verdict, and whether a row came."""
        is_new = self.register(image)
        url = self.own_url(image.id)
        if url is not None:
            self._record(image, Location(image.id, url, self.metadata()), Verdict.INTACT)
        self.carry_pin(image)
        return is_new

    def copy(self, image: Image) -> Copy | None:
        """This host's complete file, open, read or not (the caller looks); one that is another image's goes.

        Raises CacheError, its child Unreadable for one that is withheld; CatalogueError when the registration of such
        a file cannot be withdrawn.
        """
        copy = self.cache.complete.open(image.id)
        if copy is None:
            return None
        if not copy.entry.is_anothers(image):
            if copy.entry.fault:
                copy.close()
                raise Unreadable(f"its cached file is withheld until it can be read: {copy.entry.fault}")
            return copy
        with closing(copy):
            self.dispel(image, copy)
        return None

    def dispel(self, image: Image, copy: Copy) -> None:
        """A complete file that cannot be the image's is gone, its row first. Raises CatalogueError, CacheError."""
        path = self.cache.path(image.id)
        log.error("image %s: %s is cut, or another image's, of the same id: row and file go", image.id, path)
        self.withdraw(image.id)
        self.cache.complete.remove_copy(image.id, copy)

    def put_aside(self, image: Image, copy: Copy) -> None:
        """The complete file turned out wrong: its row goes, then the file. Raises CatalogueError, CacheError.

        Killed in between: a file without a row, read again by the next pass before it is registered.
        """
        log.error("image %s: cached file is damaged; withdrawn and set aside", image.id)
        self.withdraw(image.id)
        self.cache.complete.set_aside(image.id, copy)

    def served(self, image_id: str, sent: int, *, hit: bool, is_use: bool = True) -> None:
        """So many bytes went out. Only what is sent to clients counts when it is decided what goes first."""
        self.activity.served(image_id, sent, hit=hit)
        if sent and is_use:
            self.cache.complete.used(image_id)

    def carry_pin(self, image: Image) -> None:
        """The complete file of this host stays if it is to; what cannot be asked now the janitor finds out."""
        try:
            self.hosts.ask("pins", lambda: self.pinning.carry_one(image.id), None)
        except (CatalogueError, CacheError) as error:
            log.warning("image %s: whether it is to stay the janitor will find out: %s", image.id, error)

    @crash_points
    def register(self, image: Image) -> bool:
        """The complete file of this host is a location of the image; what cannot be done now the janitor does later.

        Whether it was none, or one that named another host, until now.
        """
        url = self.own_url(image.id)
        if url is None:  # no crash test: this host may not register
            log.warning("image %s: cached but not registered: %s", image.id, self.why_unregistered())
            return False
        held = self.cache.complete.hold(image.id)  # so that no eviction comes between the look at the file and the row
        if held is None:
            log.info("image %s: not registered, its file has gone", image.id)  # no crash test: evicted just now
            return False
        try:
            with closing(held):
                if held.entry.fault or not held.entry.is_file_of(image):
                    log.info("image %s: not registered before its file was read", image.id)  # no crash test: a race
                elif self.catalogue.add(image.id, url, self.metadata(), digest=image.digest):
                    log.info("image %s: registered on host %s", image.id, self.settings.host_name)
                    return True
        except Gone as error:  # deleted while it was filled
            log.info("image %s: not registered, its file goes: %s", image.id, error)
            self.cache.complete.remove(image.id)
        except Refused as error:  # no crash test: a database that is behind; the janitor asks again, more than once
            log.warning("image %s: not registered yet: %s", image.id, error)
        except CatalogueError as error:
            log.warning("image %s: not registered yet: %s", image.id, error)
        return False

    @crash_points
    def withdraw(self, image_id: str) -> None:
        """This host's registration of an image is gone. Raises CatalogueError, and then its file must stay."""
        base, name, owner = self.settings.host_url, self.settings.host_name, self.standing.owner()
        if base is not None:
            only = name if self.standing.rival() else None  # else the row is that of the host that has the URL
            if self.catalogue.withdraw_url(image_id, location.replica_url(base, image_id), host=only):
                log.info("image %s: withdrawn from host %s", image_id, name)
        if owner is not None and owner.url is not None:  # no crash test: two hosts in one directory
            self.catalogue.withdraw_url(image_id, location.replica_url(owner.url, image_id))

    def drop(self, image_id: str, *, who: str, reason: str) -> int:
        """This host's copy is gone, its row first; bytes freed. Noted in the ledger as an order of `who`.

        Raises LastCopy when it is the last intact copy that is known of, and CatalogueError, LedgerError when that
        cannot be known: then nothing has changed. Killed in between: the janitor does the rest.
        """
        base = self.settings.host_url or f"http://{self.settings.host_name}"  # registered or not
        copy = Location(image_id, location.replica_url(base, image_id), self.metadata())
        line = self.removals.order(copy, reason=reason, who=who)
        self.withdraw(image_id)
        freed = self.cache.complete.remove(image_id)
        self.ledger.finish_withdrawal(line)
        log.info("image %s: removed as asked by %s: %s", image_id, who, reason)
        return freed

    def tell(self) -> int:
        """What this process served since the last time is in the ledger; returns its bytes.

        Without a ledger they wait for the next time. A process that is killed takes with it what it has not told.
        """

        def add() -> bool:
            self.uses.add(self.settings.host_name, taken)
            return True

        taken = self.activity.take()
        if taken and not self.hosts.ask("usage", add, False):
            self.activity.give_back(taken)
            return 0
        return sum(use.bytes for use in taken.values())

    def own_url(self, image_id: str) -> str | None:
        """The URL to register, None when this host may not register."""
        if not self.settings.can_register or self.settings.host_url is None or self.standing.problem() is not None:
            return None
        return location.replica_url(self.settings.host_url, image_id)

    def why_unregistered(self) -> str:
        """The reason `own_url` is None, with the remedy."""
        if self.settings.host_url is None:
            return (
                "neither [replicas] host_url nor worker_self_reference_url is set; set one to the URL of this very "
                "host, such as http://10.0.0.11:9292, and restart glance-api"
            )
        if self.settings.can_register and (problem := self.standing.problem()) is not None:
            return problem
        return "no http store is enabled; add one (enabled_backends = ..., web:http) and restart glance-api"

    def metadata(self) -> dict[str, object]:
        """The metadata of every row of this host: static, because Glance compares it (docs/glance.md, duplicates)."""
        found = {
            HOST_KEY: self.settings.host_name,
            ZONE_KEY: self.settings.host_zone,
            STORE_KEY: self.settings.http_store,
        }
        return {key: value for key, value in found.items() if value is not None}

    @crash_points
    def _reserve(self, growing: Growing, size: int) -> None:
        most = self.settings.max_image_bytes
        if most and size > most:
            raise NoRoom(f"{size} bytes are more than max_image_bytes = {most}")
        self.space.reserve(growing, size, self._withdraw_soon)
        self.activity.began()

    def _withdraw_soon(self, image_id: str) -> None:
        """As `withdraw`, for somebody who waits for bytes. A row that goes later, its file still here, comes back."""

        def withdrawn() -> bool:
            self.withdraw(image_id)
            return True

        if not self.hosts.ask_soon("evictions", withdrawn, False):
            raise CatalogueError(f"image {image_id}: not evicted, its row could not be withdrawn in time")

    def _ended(self, image: Image) -> None:
        self.activity.ended()
        self.route.release(image)

    @crash_points
    def _condemned(self, image: Image, used: Sequence[Location]) -> None:
        """One source alone gave wrong bytes: that is a full look at it, worth a record."""
        names = ", ".join(location.redact(one.url) for one in used) or "a growing file taken over"
        log.error("image %s: wrong bytes came from %s", image.id, names)
        self.route.avoid(used)
        if len(used) == 1 and used[0] in image.locations:
            self._record(image, used[0], Verdict.CORRUPT)

    @crash_points
    def _record(self, image: Image, one: Location, verdict: Verdict) -> None:
        """A fill reads every byte: what it found is a verdict like any other."""
        detail = f"when host {self.settings.host_name} filled its cache"
        result = Result(one, verdict, Evidence.FULL, detail, datetime.now(UTC), size=image.size)
        self.hosts.ask("results", lambda: self.ledger.record([result]), None)
