"""`replica report`: its sums, what an operator reads, and the page as a real browser shows it."""

import contextlib
import html
import json
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from services import environment, need
from support.programs import Desk

from glance_replicas.model import Host, Image, Location, Result
from glance_replicas.tools.report_page import page
from glance_replicas.tools.report_page.condition import Condition, Severity
from glance_replicas.tools.report_page.report_model import CopyRow, Holder, ImageRow, ReportModel, survey
from glance_replicas.verdict import Evidence, Verdict

pytest_plugins = ["support.desk"]

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOSTS = [
    Host("api1", "az1", "http://10.0.0.1", NOW, 2, 600, 400, 5.0),
    Host("api2", "az2", "http://10.0.0.2", NOW, 0, 0, 0, 9e9),
]
EVIL = "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">\u202e"
FULL, SIZE = Evidence.FULL, Evidence.SIZE


def result(one: Location, verdict: Verdict, evidence: Evidence = FULL, seconds: float = 60, detail: str = "") -> Result:
    return Result(one, verdict, evidence, detail, NOW - timedelta(seconds=seconds))


def image_id(number: int) -> str:
    return f"11111111-2222-4333-8444-{number:012d}"


def place(number: int, where: str) -> Location:
    """A copy in a store, or on a host when the place is one."""
    ours = {"replica_host": where, "replica_zone": "az1"} if where.startswith("api") else {}
    folder = "replicas" if ours else "images"
    return Location(image_id(number), f"http://{where}/{folder}/{image_id(number)}", {"store": where} | ours)


def row(number: int, name: str = "", **copies: tuple[Verdict, Evidence] | Verdict | None) -> ImageRow:
    """An image with copies in these places: `fast=Verdict.INTACT, api1=None` (never verified)."""
    found = []
    for where, said in copies.items():
        verdict, evidence = said if isinstance(said, tuple) else (said, FULL)
        one = place(number, where)
        last = result(one, verdict, evidence, detail=f"as {where} has it") if verdict else None
        found.append(CopyRow(one, last, last.checked_at if last and evidence is FULL else None))
    locations = tuple(one.location for one in found)
    return ImageRow(Image(image_id(number), "active", 1000, None, locations, name or f"image {number}"), tuple(found))


INTACT, CORRUPT, UNREACHABLE = Verdict.INTACT, Verdict.CORRUPT, Verdict.UNREACHABLE


@pytest.mark.parametrize(
    ("copies", "severity"),
    [
        ({}, Severity.NOWHERE),
        ({"api1": INTACT}, Severity.ONLY_CACHED),
        ({"api1": CORRUPT, "api2": None}, Severity.ONLY_CACHED),
        ({"fast": CORRUPT}, Severity.AT_RISK),
        ({"fast": CORRUPT, "api1": INTACT}, Severity.AT_RISK),
        ({"fast": CORRUPT, "slow": (INTACT, SIZE)}, Severity.AT_RISK),
        ({"fast": CORRUPT, "slow": INTACT}, Severity.DURABLE_DAMAGED),
        ({"fast": INTACT, "api1": Verdict.MISSING}, Severity.CACHED_DAMAGED),
        ({"fast": INTACT, "api1": UNREACHABLE}, Severity.UNKNOWN),
        ({"fast": INTACT, "api1": None}, Severity.NEVER),
        ({"fast": INTACT, "api1": (INTACT, SIZE)}, Severity.SHALLOW),
        ({"fast": INTACT}, Severity.FINE),
    ],
)
def test_severity(copies: dict[str, Verdict | None], severity: Severity) -> None:
    """Damage weighs by what is left: no durable copy known good, then durable, then cached; a size proves nothing."""
    assert row(1, **copies).severity is severity
    problems = list(row(1, **copies).problems())
    assert bool(problems) is severity.is_trouble
    assert all(step for *_, step in problems)


def test_sums() -> None:
    """Each copy is counted once: by place, in the zone the ledger says, by condition, and by age."""
    total = ReportModel(NOW, HOSTS, 600.0)
    ages = (0, 3600, 3601, 7 * 86400, 28 * 86400, 28 * 86400 + 1)
    copies = [CopyRow(place(9, "slow"), result(place(9, "slow"), INTACT), NOW - timedelta(seconds=age)) for age in ages]
    aged = [ImageRow(row(9, slow=INTACT).image, (copy,)) for copy in copies]
    rows = [row(1, fast=INTACT, api2=CORRUPT), row(2, fast=(INTACT, SIZE), api3=None), row(3), *aged]
    assert list(survey(rows, total)) == rows
    assert (total.images, total.nowhere, total.durable.copies, total.cached.copies) == (9, 1, 8, 2)
    assert total.conditions() == {Condition.INTACT: 7, Condition.SHALLOW: 1, Condition.DAMAGED: 1, Condition.NEVER: 1}
    assert dict(total.ages()) == {"hour": 4, "day": 1, "week": 1, "4 weeks": 1, "older": 1, "never": 2}
    assert sorted(total.places) == [
        Holder(False, "", "fast"),
        Holder(False, "", "slow"),
        *(Holder(True, "az1", "api1"), Holder(True, "az1", "api3"), Holder(True, "az2", "api2")),
    ]
    assert [total.state(one) for one in sorted(total.places)] == ["", "", "alive", "not known", "dead"]
    (worst,) = total.as_dict([rows[0]])["worst"]
    assert (worst["place"], worst["verdict"], worst["detail"]) == ("host api2", "corrupt", "as api2 has it")


def test_on_a_site(desk: Desk, tmp_path: Path) -> None:
    """What verify found is in text, JSON and page, with the next command; status 1: damage, 3: nothing is known."""
    good, bad = desk.image(b"good", "fine"), desk.image(b"bad one", EVIL)
    path = desk.add_file(bad, b"bad two")
    assert desk.run("report", good).status == 3, "nothing was ever looked at"
    assert desk.run("verify", good, bad).status == 1
    assert desk.run("report", good).status == 0
    done = desk.run("report", good, bad)
    assert (done.status, done.err) == (1, "")
    assert "2 images of 11 B: 3 copies in stores, 0 on hosts" in done.out
    assert f"corrupt in store fast at file://{path}" in done.out
    assert f"replica prune {bad} --state corrupt\n" in done.out.partition("    next: ")[2]
    assert "\u202e" not in done.out
    found = desk.run("report", good, bad, "-f", "json").rows
    assert (found["images"], found["freshness"]["hour"], found["verdicts"]) == (2, 3, {"intact": 2, "corrupt": 1})
    assert [one["image"] for one in found["worst"]] == [bad]
    target = tmp_path / "report.html"
    target.write_text("the one before")
    assert desk.run("report", good, bad, "--html", target).status == 1
    assert "Images and their copies" in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"], "nothing is left beside it"
    done = desk.run("report", good, "--html", tmp_path / "no" / "x.html")
    assert (done.status, "no such file" in done.err) == (2, True)


def test_without_a_ledger(desk: Desk, tmp_path: Path) -> None:
    """A report without verdicts would say that nothing was ever looked at: there is none, status 3."""
    path = tmp_path / "glance-api.conf"
    path.write_text(desk.host.config_file.read_text().replace(desk.ledger_url, f"sqlite:///{tmp_path}/empty"))
    done = desk.programs.run("--config-file", path, "report")
    assert (done.status, done.out) == (3, "")
    assert "replica db upgrade" in done.err


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 5,000 images: most intact, some not, one with a name that attacks."""
    total = ReportModel(NOW, HOSTS, 600.0)
    rows = [row(n, fast=INTACT, api1=(INTACT, SIZE) if n % 2 else None) for n in range(10, 5000)]
    rows += [row(1, EVIL, fast=CORRUPT), row(2, "needle", slow=INTACT, api2=UNREACHABLE), row(3, "lost")]
    rows += [row(n, fast=INTACT, api1=CORRUPT) for n in range(4, 10)]
    path = tmp_path_factory.mktemp("page") / "report.html"
    page.write(path, total, sorted(survey(rows, total), key=lambda one: one.rank))
    return path


def dom(path: Path, fragment: str = "") -> str:
    """The page as Chromium has it after its script ran."""
    with tempfile.TemporaryDirectory() as folder:
        command = [need("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"]
        command += ["--disable-dev-shm-usage"]  # containers give it 64 MiB
        command += [f"--user-data-dir={folder}", "--dump-dom", f"{path.as_uri()}#{fragment}"]
        done = subprocess.run(
            command, env=environment(HOME=folder), capture_output=True, text=True, timeout=120, check=True
        )
    return done.stdout


def listed(text: str) -> list[str]:
    """The ids of the rows that are drawn."""
    return re.findall(r'<tr data-id="([^"]+)"', text)


def cells(text: str, number: int) -> list[tuple[str, str, str]]:
    """Class, title and mark of an image's copies."""
    (line,) = re.findall(rf'<tr data-id="{image_id(number)}">(.*?)</tr>', text, re.DOTALL)
    found = re.findall(r'<td class="([a-z]+)[^"]*" title="([^"]*)"[^>]*>([^<]*)</td>', line)
    return [(kind, html.unescape(title), mark) for kind, title, mark in found]


def test_the_list_in_a_browser(written: Path) -> None:
    """Of 5,000 images only rows near what is seen are drawn, the worst first, each copy in colour, mark and words."""
    text = dom(written)
    drawn = listed(text)
    assert drawn[:4] == [image_id(number) for number in (3, 1, 4, 5)]
    assert 20 < len(drawn) < 200
    assert ">4,999 of 4,999 images<" in text
    assert cells(text, 1) == [("damaged", "in store fast: corrupt, every byte read, 60 s ago", "✗")]
    assert cells(text, 2) == [
        ("intact", "in store slow: intact, every byte read, 60 s ago", "✓"),
        ("unknown", "on host api2: unreachable, every byte read, 60 s ago", "?"),
    ]
    assert [cell[0] for cell in cells(text, 4)] == ["intact", "damaged"]
    assert re.search(r'title="host api2, dead"', text)


@pytest.mark.parametrize(
    ("fragment", "numbers"),
    [
        ("q=NEEDLE", [2]),
        ("damaged=1", [1, 4, 5, 6, 7, 8, 9]),
        ("at=host%3Aapi1&state=corrupt&order=name&q=image+4", [4]),
        ("q=no+such&state=nonsense", []),
    ],
)
def test_filters(written: Path, fragment: str, numbers: list[int]) -> None:
    """What the address says is what is shown; a filter that there is not filters nothing."""
    text = dom(written, fragment)
    assert listed(text) == [image_id(number) for number in numbers]
    assert f">{len(numbers)} of 4,999 images<" in text
    assert ("No image is like that" in text) is not numbers


def test_names_start_nothing(written: Path) -> None:
    """A name that is HTML is text in every part of the page, also when it is looked for."""
    text = dom(written, "q=pwned")
    assert "<title>Images and their copies</title>" in text
    assert listed(text) == [image_id(1)]
    assert "<img" not in text
    assert text.count("<script") == 2
    assert "\u202e" not in text


class Shape(HTMLParser):
    """The elements of a page with the names of their attributes: what texts in it must not change."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *(name for name, _ in attrs)))


def named(path: Path, text: str) -> Path:
    """A page in which all that others may write is this text: names, hosts, zones, stores, what was found."""
    host = Host(text, text, "http://10.0.0.1", NOW, 2, 600, 400, 5.0)
    ours = {"replica_host": text, "replica_zone": text}
    places = [Location(image_id(1), f"http://web/{image_id(1)}", meta) for meta in ({"store": text}, ours)]
    copies = tuple(CopyRow(one, result(one, CORRUPT, detail=text)) for one in places)
    total = ReportModel(NOW, [host], 600.0)
    rows = [ImageRow(Image(image_id(1), "active", 1000, None, tuple(places), text), copies)]
    page.write(path, total, list(survey(rows, total)))
    return path


@pytest.mark.parametrize(
    "hostile",
    [
        "</script><script>document.title='pwned'</script>",
        "--></style></title><!--<script>",
        '" onmouseover="document.title=\'pwned\'" x="',
        "' autofocus onfocus='document.title=1' x='",
        "{{ 7 * 7 }}{% include 'page.js' %}${7*7}",
        "&lt;img src=x onerror=alert(1)&gt;",
    ],
)
def test_hostile_texts_change_no_element(tmp_path: Path, hostile: str) -> None:
    """Whatever names hold, the page has the elements and attributes of one with harmless names, and says them whole."""
    tame, wild = named(tmp_path / "tame.html", "name"), named(tmp_path / "wild.html", hostile)
    assert Shape(wild.read_text()).found == Shape(tame.read_text()).found
    shown = dom(wild)
    assert Shape(shown).found == Shape(dom(tame)).found
    assert "<title>Images and their copies</title>" in shown
    assert html.unescape(shown.partition('<table class="worst">')[2]).count(hostile) >= 3, "name, places, found"


def test_the_page_loads_nothing(written: Path) -> None:
    """No address in it, and its policy lets nothing be loaded; all sums are there before any script runs."""
    text = written.read_text()
    static = text.partition('id="data">')[0]
    assert not re.search(r"""(src|href|action)=["']|url\(|@import""", static)
    assert "default-src 'none'; style-src 'sha256-" in text
    assert all(words in static for words in ("api1", "1 hour", "images without any copy", "replica verify"))
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert len(data["images"]) == 4999


@contextlib.contextmanager
def changed(path: Path, old: str, new: str) -> Iterator[Path]:
    other = path.with_name("changed.html")
    other.write_text(path.read_text().replace(old, new))
    yield other
    other.unlink()


def test_the_policy_holds(written: Path) -> None:
    """A script that is not ours does not run, whatever brought it into the page."""
    with changed(written, "<main>", "<main><script>document.title='pwned'</script>") as other:
        assert "<title>Images and their copies</title>" in dom(other, "q=needle")
    with changed(written, "document.getElementById", "document.title='pwned';document.getElementById") as other:
        assert listed(dom(other)) == [], "a changed script is not ours either"
