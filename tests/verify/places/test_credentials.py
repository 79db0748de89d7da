"""Secrets in rows of old: never shown, never kept, and what was found of a copy outlives their removal from the row."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from services import eventually
from services.databases.schema import query
from services.glance.site import GlanceHost, GlanceSite
from services.stores.swift import Swift
from services.web.faulty import FaultyServer
from support.programs import Programs
from support.worlds.scenes import fails

from glance_replicas.ledger.ledger import Ledger, place_key
from glance_replicas.ledger.schema import tables
from glance_replicas.model import Location, Result
from glance_replicas.verdict import Evidence, Verdict

pytest_plugins = ["support.desk"]

DATA = b"the bytes of an image" * 1000
USER, SECRET = "AKIATEST", "ab/cd+EFsecret"
SECRETS = re.compile(f"{USER}|EFsecret|pa/ss|tenant%3Auser")


def dump(url: str) -> str:
    """All that our tables hold."""
    return "\n".join(str(row) for name in tables.metadata.tables for row in query(url, f"SELECT * FROM {name}"))


@dataclass
class Old:
    """An image in S3 whose row has the secret of its time, and one more copy on a web server."""

    host: GlanceHost
    image: str
    url: str  # without the secret
    programs: Programs
    folder: Path
    said: list[str]

    def write_secret(self) -> None:
        """The first row is as it was; Glance takes the secret out when an owner looks at his image."""
        scheme, rest = self.url.split("://")
        row = self.host.site.locations(self.image)[0]["id"]
        text = "UPDATE image_locations SET value = :url WHERE id = :row"
        self.host.site.rows(text, url=f"{scheme}://{USER}:{SECRET}@{rest}", row=row)

    def run(self, *words: object) -> Any:
        log = self.folder / "log"
        done = self.programs.run("--config-file", self.host.config_file, "-vv", "--log-file", log, *words)
        self.said += [done.out, done.err, log.read_text()]
        return done

    def states(self) -> dict[str, str]:
        found = self.run("list", self.image, "-f", "json").rows
        return {row["Store"]: row["Verdict"] for row in found}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, swift: Swift, programs: Programs) -> Iterator[Old]:
    folder = tmp_path_factory.mktemp("old")
    with GlanceSite(folder / "site", store="s3", swift=swift) as site, FaultyServer() as web:
        host = site.add_host("127.0.0.2", processes=1)
        image = host.client().create("old", DATA)["id"]
        (url,) = (one["url"] for one in site.locations(image))
        site.add_location(image, web.put("/good", DATA), {"store": "web"})
        yield Old(host, image, url, programs, folder, [])


def test_a_secret_is_never_shown_nor_kept(old: Old, swift: Swift) -> None:
    """Not by any command, format, log or page, of an image that is intact, damaged, repaired and downloaded."""
    page = old.folder / "page.html"
    old.write_secret()
    assert old.run("verify", old.image).status == 0
    key = old.url.rpartition("/")[2]
    swift.connection().put_object(swift.bucket, key, DATA[:-1] + b"!")
    assert fails(old.host, old.image) or old.host.client().download(old.image).content == DATA
    log = old.host.log()
    old.write_secret()
    for words in (
        *("list {}", "list {} -f json", "list {} -f value", "verify {}", "verify {} -f json", "verify {} --debug"),
        *("verify {} --evidence stored", "verify --all --dry-run", "repair {}", "prune {}", "prune {} -f json"),
        *(
            "prune {} --duplicates",
            "audit --all",
            "report {} -f json",
            "audit log",
            "audit log -f json",
            "list -f jsonl",
        ),
    ):
        assert old.run(*words.format(old.image).split()).status in (0, 1, 2, 3)
    old.run("report", "--html", page)
    assert old.states() == {"fast": "corrupt", "web": "intact"}
    kept = dump(old.host.site.ledger_url)
    assert "corrupt" in kept
    assert SECRET in str(old.host.site.locations(old.image))
    for text in (*old.said, page.read_text(), kept, log):
        assert not (found := SECRETS.search(text)), text[max(0, found.start() - 300) : found.end() + 100]


def test_old_and_new_spelling_are_one_copy(old: Old) -> None:
    """What was found before Glance strips the row, as the owner looks at his image, is known after it.

    With both spellings in the catalogue one goes as a duplicate of the other, and repair makes good one copy.
    """
    site = old.host.site
    old.write_secret()
    assert old.run("repair", old.image, "--yes").status == 0
    site.add_location(old.image, old.url, {"store": "fast"})
    assert old.run("verify", old.image).status == 0
    assert "1 location can go" in old.run("prune", old.image, "--duplicates").out
    (row,) = (one["id"] for one in site.locations(old.image) if one["url"] == old.url)
    site.rows("UPDATE image_locations SET deleted = :yes, status = 'deleted' WHERE id = :row", yes=True, row=row)
    before = old.states()
    assert before == {"fast": "intact", "web": "intact"}
    old.host.client().get(old.image)
    assert eventually(lambda: old.url in {one["url"] for one in site.locations(old.image)})
    assert old.states() == before
    assert not any(SECRETS.search(text) for text in old.said)


def old_row(image: str, url: str, verdict: str, day: int) -> dict[str, Any]:
    """A row as versions before wrote it: the URL as it is, known by the hash of it."""
    place = hashlib.sha256(f"\n{url.replace('s3+https', 's3')}".encode()).hexdigest()
    detail = f"{url}: what was found"
    moment = f"2026-01-{day:02d} 00:00:00"
    return {"image": image, "place": place, "url": url, "verdict": verdict, "detail": detail, "at": moment}


@pytest.mark.parametrize("newer", ["old", "new", None])
def test_an_upgrade_redacts_what_is_kept(ledger: Ledger, database_url: str, newer: str | None) -> None:
    """Secrets go out of every table, and verdicts stay with their places; of two the younger."""
    image, bare = "80000000-0000-4000-8000-000000000001", "s3+https://h:9000/b/o"
    url = f"s3+https://{USER}:{SECRET}@h:9000/b/o"
    columns = "(image_id, place, url, verdict, evidence, detail, seconds, checked_at)"
    values = "(:image, :place, :url, :verdict, 'full', :detail, 1, :at)"
    row = old_row(image, url, "corrupt", 20)
    for table in ("checks", "states"):
        query(database_url, f"INSERT INTO replica_{table} {columns} VALUES {values}", **row)
    other = old_row(image, "swift+https://tenant%3Auser:pa/ss@h/v3/c/o", "missing", 20)
    query(database_url, f"INSERT INTO replica_states {columns} VALUES {values}", **other)
    if newer:
        at = 10 if newer == "old" else 30
        query(
            database_url, f"INSERT INTO replica_states {columns} VALUES {values}", **old_row(image, bare, "intact", at)
        )
    proof = {"target": url, "keeps": [{"url": url}], "cause": "damaged"}
    ledger.request_withdrawal(Location(image, bare), reason=f"it is not like {url}", who="me@h", proof=proof)
    assert SECRETS.search(dump(database_url))
    assert ledger.upgrade() == []
    assert not SECRETS.search(dump(database_url))
    (found,) = (one for (_, place), one in ledger.states([image]).items() if place == place_key(Location(image, url)))
    assert found.verdict is (Verdict.INTACT if newer == "new" else Verdict.CORRUPT)
    assert len(ledger.states([image])) == 2
    assert [one.location.url for one in ledger.history(image)] == [bare]
    (request,) = ledger.withdrawals()
    assert request.proof == {"target": bare, "keeps": [{"url": bare}], "cause": "damaged"}
    assert (request.reason, request.who) == (f"it is not like {bare}", "me@h")
    before = dump(database_url)
    ledger.upgrade()
    assert dump(database_url) == before


def test_no_new_row_has_a_secret(ledger: Ledger, database_url: str) -> None:
    """A result whose text a library wrote is kept without."""
    one = Location("80000000-0000-4000-8000-000000000002", f"s3://{USER}:{SECRET}@h/b/o")
    ledger.record([Result(one, Verdict.UNREACHABLE, Evidence.FULL, f"boto3 said {one.url} is odd")])
    assert not SECRETS.search(dump(database_url))
