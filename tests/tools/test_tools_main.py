"""The programs as an operator meets them when something is wrong: one line, the right status, no traceback."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from services import environment, eventually
from services.web.faulty import FaultyServer
from support import ROOT
from support.programs import Desk, Programs

from glance_replicas.cache import Cache
from glance_replicas.cache.host_lock import HostLock
from glance_replicas.ledger.prefetch_requests import PrefetchRequests
from glance_replicas.ledger.usage import Usage
from glance_replicas.model import Host, Use

pytest_plugins = ["support.desk"]

ABSENT = "00000000-0000-4000-8000-000000000000"
BIN = Path(sys.executable).parent


def conf(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "glance-api.conf"
    path.write_text(text)
    return path


def only_line(text: str) -> str:
    """The one line there is."""
    (line,) = text.splitlines()
    return line


def test_a_missing_file_is_named(programs: Programs) -> None:
    """--config-file with a path that does not exist."""
    done = programs.run("--config-file", "/nonexistent/glance-api.conf", "list")
    assert done.status == 2
    assert "/nonexistent/glance-api.conf does not exist" in only_line(done.err)


def test_a_file_that_is_no_configuration(programs: Programs, tmp_path: Path) -> None:
    """Garbage in the file is named with the file."""
    done = programs.run("--config-file", conf(tmp_path, "what is this"), "list")
    assert done.status == 2
    assert "glance-api.conf" in done.err
    assert "Traceback" not in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(programs: Programs, tmp_path: Path) -> None:
    """A file that this user may not read."""
    path = conf(tmp_path, "")
    path.chmod(0)
    done = programs.run("--config-file", path, "list")
    assert done.status == 2
    assert "no permission" in only_line(done.err)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[replicas]\nhost_nam = x", "did you mean host_name?"),
        ("[replicas]\nsigning_keys = short", "signing_keys"),
        ("[replicas]\nmax-bytes = 5", "did you mean max_bytes?"),  # oslo.config passes over it
        (
            "[replicas]\njanitor_interval_seconds = soon",
            "glance-api.conf: [replicas] janitor_interval_seconds = soon: this must be a number, 1.0 or more",
        ),
        ("[replicas]\nmax_bytes = -1", "[replicas] max_bytes = -1: this must be a whole number, 0 or more"),
        ("[replicas]\nsendfile = on", "sendfile = on: this must be one of auto, off, x-accel-redirect, uwsgi"),
        ("[replicas]\njanitor = maybe", "janitor = maybe: this must be true or false"),
        ("[replicas]\nhigh_watermark_percent = 101", "= 101: this must be a whole number from 1 to 100"),
        ("[DEFAULT]\nimage_cache_max_size = x", "glance-api.conf: Value for option image_cache_max_size"),
    ],
)
def test_a_bad_value_is_named(programs: Programs, tmp_path: Path, text: str, said: str) -> None:
    """A wrong option of ours stops the program and is named."""
    done = programs.run("--config-file", conf(tmp_path, f"[database]\nconnection = sqlite://\n{text}\n"), "list")
    assert done.status == 2
    assert said in only_line(done.err)


def test_a_database_out_of_reach_is_not_known(programs: Programs, tmp_path: Path) -> None:
    """Exit 3: the catalogue could not be asked; the URL is shown without its password."""
    text = "[database]\nconnection = postgresql+psycopg2://glance:secret@127.0.0.9:1/glance\n"
    done = programs.run("--config-file", conf(tmp_path, text), "list")
    assert done.status == 3
    assert "127.0.0.9" in only_line(done.err)
    assert "secret" not in done.err


def test_a_database_that_is_not_glances(programs: Programs, tmp_path: Path) -> None:
    """An empty database: exit 3 and what to run."""
    done = programs.run("--config-file", conf(tmp_path, f"[database]\nconnection = sqlite:///{tmp_path}/x"), "list")
    assert done.status == 3
    assert "glance-manage db_sync" in only_line(done.err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no command given"),
        (["lst"], "there is no command lst; did you mean list?"),
        (["help", "nosuch"], "there is no command nosuch"),
        (["list", "--bogus"], "unrecognized arguments: --bogus"),
        (["list", "not-an-id"], "'not-an-id' is not an image id"),
        (["verify", "--all", "--max-age", "soon"], "'soon' is not a duration"),
        (["verify", "--all", "--max-bytes-per-second", "0"], "'0' is not a size"),
        (["verify", "--all", "--workers", "-1"], "'-1' is not a whole number above 0"),
        (["janitor"], "add --once"),
        (["list", "-c", "bogus"], "-c 'bogus': no such column; there are: Image, Name, "),
        (["list", "-c", "Name", "-c", "bogus"], "-c 'bogus': no such column; there are: Image, Name, "),
        (["list", "-f", "jsonl", "-c", "image", "-c", "no_such_column"], "-c 'no_such_column': no such column"),
        (["host", "-c", "Name", "-c", "bogus"], "-c 'bogus': no such column; there are: Name, Zone, "),
        (["prune", "--yes", "--cached", ABSENT, "-c", "bogus", "-c", "Nmae"], "-c 'bogus', 'Nmae': no such column"),
        (["check", "-c", "bogus"], "-c 'bogus': no such column; there are: Severity, What, "),
    ],
)
def test_wrong_words_are_usage(desk: Desk, words: list[str], said: str) -> None:
    """Exit 2, the reason on stderr, nothing on stdout."""
    done = desk.run(*words)
    assert (done.status, done.out) == (2, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_debug_shows_where(programs: Programs) -> None:
    """--debug, and nothing else, brings the traceback."""
    done = programs.run("--debug", "--config-file", "/nonexistent", "list")
    assert "Traceback" in done.err
    assert "ConfigError" in done.err


def test_global_options_stand_anywhere(desk: Desk) -> None:
    """--config-file after the command is the same as before it."""
    assert desk.programs.run("list", "--config-file", desk.host.config_file).status == 0


def test_help_of_a_command(programs: Programs) -> None:
    """`replica verify --help` is the help of verify, without any configuration."""
    done = programs.run("verify", "--help")
    assert done.status == 0
    assert "--max-bytes-per-second" in done.out


def test_a_missing_ledger_does_not_stop_a_verification(desk: Desk, tmp_path: Path) -> None:
    """Verdicts are shown, and one line says that they are not kept."""
    text = desk.host.config_file.read_text()
    path = conf(tmp_path, text.replace(desk.ledger_url, f"sqlite:///{tmp_path}/empty"))
    done = desk.programs.run("--config-file", path, "verify", desk.image(b"x" * 100))
    assert done.status == 0
    assert "1 location verified: 1 intact" in done.out
    assert done.err.count("verdicts are neither read nor kept") == 1
    assert "replica db upgrade" in done.err


def test_the_installed_programs_are_the_commands(desk: Desk) -> None:
    """replica-list, a program of its own, into a reader that leaves: no noise of libraries, no broken pipe."""
    command = f"{BIN}/replica-list --config-file {desk.host.config_file} --name keeper -f jsonl | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"Name": "keeper"' in done.stdout


def test_interrupted_is_130(desk: Desk) -> None:
    """Ctrl-C while a source says nothing: at once, quietly, status 130."""
    image = desk.image(bytes(1 << 20))
    with FaultyServer() as web:
        web.put(f"/replicas/{image}", bytes(1 << 20), stall_at=1000)
        desk.add_replica(image, web.url)
        words = ["--config-file", str(desk.host.config_file), "verify", image]
        with subprocess.Popen(
            [str(BIN / "replica"), *words], stderr=subprocess.PIPE, text=True, env=environment()
        ) as program:
            assert eventually(lambda: web.reads(f"/replicas/{image}"), timeout=60)
            began = time.monotonic()
            program.send_signal(signal.SIGINT)
            _, err = program.communicate(timeout=30)
    assert program.returncode == 130
    assert time.monotonic() - began < 10
    assert err == "replica: error: interrupted\n"


def test_hosts_are_listed_with_their_state(desk: Desk) -> None:
    """A host with a fresh heartbeat is alive, with its files and the rows that are its own."""
    ledger = desk.ledger
    ledger.heartbeat(Host("api15", "z5", "http://127.0.0.15:9292", datetime.now(UTC), 3, 1000, 2000))
    ledger.claim_fill("11111111-2222-4333-8444-555555555555", "api15", "http://127.0.0.15:9292", 60)
    PrefetchRequests(ledger.database).request(["11111111-2222-4333-8444-555555555555", "x"], ["api15"], who="w")
    PrefetchRequests(ledger.database).progress("x", "api15", 1, 2)
    Usage(ledger.database).add("api15", {"11111111-2222-4333-8444-555555555555": Use(4, 1000, 250)})
    ledger.close()
    image = desk.image(b"for api15")
    desk.add_replica(image, "http://127.0.0.15:9292", host="api15")
    desk.add_replica(image, "http://127.0.0.16:9292", host="api15")  # not its URL: not its own
    (row,) = desk.run("host", "api15", "-f", "json").rows
    assert (row["State"], row["Files"], row["Registered"], row["Free"]) == ("alive", 3, 1, 2000)
    assert (row["Fills"], row["Waiting"], row["Downloads"]) == (1, 1, 4)
    assert (row["Served"], row["Hit Ratio"]) == (1000, 0.25)
    assert "25 %" in desk.run("host", "api15").out
    done = desk.run("host", "api-none")
    assert (done.status, done.out) == (3, "")
    assert "replica: the ledger has no host api-none; it has: " in done.err
    assert "api15" in done.err


def test_check_finds_what_is_wrong(desk: Desk, tmp_path: Path) -> None:
    """On a real configuration: the stock pipeline, a quota and an absent ledger are found; exit 1."""
    text = desk.host.config_file.read_text()
    text = text.replace("[DEFAULT]", "[DEFAULT]\nimage_location_quota = 1\nshow_multiple_locations = true")
    paste = desk.host.folder / "glance-api-paste.ini"
    stock = tmp_path / "paste.ini"
    stock.write_text(paste.read_text().replace(" replica-api replica-cache ", " cache "))
    text = text.replace(str(paste), str(stock))
    text = text.replace(desk.ledger_url, f"sqlite:///{tmp_path}/empty")
    text = text.replace(
        "[replicas]",
        f"[replicas]\ntrusted_networks = 0.0.0.0/0\npolicies = rules,nobody\nrules_file = {tmp_path}/none.yaml",
    )
    done = desk.programs.run("--config-file", conf(tmp_path, text), "check")
    assert done.status == 1
    for words in (
        "filter replica-cache is not in the pipeline",
        "Glance's own filter cache is still in the pipeline",
        "image_location_quota = 1",
        "show_multiple_locations is on",
        "do:  replica db upgrade",
        "is a loopback address",
        "error: every member may add http locations",
        "error: trusted_networks = 0.0.0.0/0 trusts everybody",
        "error: [replicas] policies: nobody: ",
        f"error: rules_file: {tmp_path}/none.yaml: No such file",
    ):
        assert words in done.out


@pytest.mark.parametrize(
    ("rule", "is_open"),
    [
        ("", True),
        ("shipped", False),
        ("role:member", True),
        ("role:admin or role:locator", False),
        ("@", True),
    ],
)
def test_check_evaluates_the_policy(desk: Desk, tmp_path: Path, rule: str, is_open: bool) -> None:
    """Who may add locations is judged by the policy in force: Glance's default, the file that we ship, or another."""
    text = desk.host.config_file.read_text()
    if rule:
        policy = tmp_path / "policy.yaml"
        shipped = (ROOT / "etc" / "policy.yaml").read_text()
        policy.write_text(shipped if rule == "shipped" else f'"add_image_location": "{rule}"\n')
        text += f"[oslo_policy]\npolicy_file = {policy}\n"
    done = desk.programs.run("--config-file", conf(tmp_path, text), "check")
    assert ("every member may add http locations" in done.out) is is_open


def test_check_asks_the_database(desk: Desk, tmp_path: Path) -> None:
    """With Glance's database out of reach check still reports, and names it."""
    text = desk.host.config_file.read_text().replace(desk.site.database_url, "postgresql+psycopg2://u:pw@127.0.0.9:1/x")
    done = desk.programs.run("--config-file", conf(tmp_path, text), "check")
    assert done.status == 1
    assert "error: Glance's database: postgresql+psycopg2://u:***@127.0.0.9:1/x" in done.out


def test_upgrade_twice_is_once(desk: Desk, tmp_path: Path) -> None:
    """The first run makes the tables, the second finds them."""
    text = desk.host.config_file.read_text()
    path = conf(tmp_path, text.replace(desk.ledger_url, f"sqlite:///{tmp_path}/new"))
    first = desk.programs.run("--config-file", path, "db", "upgrade")
    assert "the ledger was at nothing and is at" in first.out
    second = desk.programs.run("--config-file", path, "db", "upgrade")
    assert second.out.startswith("the ledger is at")
    assert "applied" not in second.out


def test_one_pass_of_the_janitor(desk: Desk) -> None:
    """replica janitor --once prints its counts, and the host is in the ledger afterwards."""
    done = desk.run("janitor", "--once")
    assert done.status == 0
    assert "registered: 0" in done.out
    assert desk.host.name in [row["Name"] for row in desk.run("host", "-f", "json").rows]


def test_a_janitor_beside_another_says_what_to_do(desk: Desk) -> None:
    """While the host's own janitor is at work: exit 3, that there is nothing to do, and how to have it from cron."""
    running = HostLock(Cache(desk.host.cache_dir), "janitor")
    assert running.take()
    try:
        done = desk.run("janitor", "--once")
    finally:
        running.free()
    assert (done.status, done.out) == (3, "")
    assert "nothing is left to do" in only_line(done.err)
    assert "set [replicas] janitor = false and restart glance-api" in done.err
