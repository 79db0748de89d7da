"""The samples in etc/ are those of this version."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import requests
from glance import policies
from oslo_config import cfg
from oslo_context.context import RequestContext
from oslo_policy import policy
from services import environment, eventually, free_port, need
from services.glance.client import GlanceClient
from services.glance.site import GlanceSite
from services.process import Process
from support import documents

from glance_replicas import options
from glance_replicas.check import pipeline, readers
from glance_replicas.prefetch import rules_file

ROOT = Path(__file__).resolve().parent.parent
ETC = ROOT / "etc"
STOCK_PASTE = Path(sys.prefix) / "etc" / "glance" / "glance-api-paste.ini"


def ini(path: Path) -> configparser.ConfigParser:
    """A file of sections, names as they are written."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(path.read_text())
    return parser


def test_sample_options_are_the_generated_ones(tmp_path: Path) -> None:
    """`oslo-config-generator --config-file etc/oslo-config-generator.conf` changes nothing."""
    sample = tmp_path / "sample"
    command = [
        need("oslo-config-generator"),
        "--config-file",
        "etc/oslo-config-generator.conf",
        "--output-file",
        sample,
    ]
    subprocess.run(command, cwd=ROOT, check=True, env=environment(), timeout=60)
    assert (ETC / "glance-replicas.conf.sample").read_text() == sample.read_text()


@pytest.mark.parametrize("flavor", ["replicas", "keystone+replicas"])
def test_sample_pipelines_are_in_order(flavor: str) -> None:
    """`replica check` finds nothing wrong with the sample's flavors, and Glance finds their composites."""
    text = (ETC / "glance-api-paste.ini").read_text()
    assert list(pipeline.faults(pipeline.roles(text, flavor))) == []
    assert f"composite:glance-api-{flavor}" in ini(ETC / "glance-api-paste.ini").sections()


def test_sample_pipeline_is_glances_own_beside_ours() -> None:
    """Every section of the installed Glance's paste file is in the sample as it is."""
    sample, stock = ini(ETC / "glance-api-paste.ini"), ini(STOCK_PASTE)
    for section in stock.sections():
        for name, value in stock.items(section):
            assert sample.get(section, name) == value, (section, name)


@pytest.mark.parametrize(
    ("roles", "service_roles", "project", "may"),
    [
        (["service"], [], "of services", True),
        (["admin", "member"], [], "of admins", True),
        (["member", "reader"], [], "owner", False),
        (["member", "reader"], ["service"], "owner", True),  # Nova and Cinder send a user's token beside their own
        (["member", "reader"], ["service"], "stranger", False),
        (["reader"], ["service"], "owner", False),
        (["member", "reader"], ["other"], "owner", False),
    ],
)
def test_sample_policy(roles: list[str], service_roles: list[str], project: str, may: bool) -> None:
    """Who may add locations with our line is who may without an http store, and admins; no member by himself."""
    conf = cfg.ConfigOpts()
    conf([], project="glance", default_config_files=[])
    enforcer = policy.Enforcer(conf, policy_file=str(ETC / "policy.yaml"))
    enforcer.register_defaults(policies.list_rules())
    caller = RequestContext(user_id="user", project_id=project, roles=roles, service_roles=service_roles)
    assert f'"add_image_location": "{readers.SERVICES_ADD}"' in (ETC / "policy.yaml").read_text()
    image = {"owner": "owner", "project_id": "owner"}
    assert bool(enforcer.enforce("add_image_location", image, caller)) is may


def test_sample_rules() -> None:
    """The sample rules file is right, and so are the rules and the policy in the documents."""
    assert len(rules_file.read(str(ETC / "replica-rules.yaml"))) == 3
    text = (ROOT / "docs" / "operations.md").read_text()
    (rules,) = re.findall(r"^ {4}rules:\n(?: {4}.*\n)+", text, re.MULTILINE)
    assert len(rules_file.parse(textwrap.dedent(rules), "operations.md")) == 2
    (policy,) = re.findall(r"^ {4}from glance_replicas.prefetch.policy .*\n(?:(?: {4}.*)?\n)+", text, re.MULTILINE)
    compile(textwrap.dedent(policy), "operations.md", "exec")


def settings_of(path: Path) -> "subprocess.CompletedProcess[str]":
    """What loading the settings from a file prints, in a process of its own: oslo.config's are global."""
    program = f"from glance_replicas import settings; print(settings.load([{str(path)!r}]).host_name)"
    command = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)


def test_sample_configuration(tmp_path: Path) -> None:
    """The lines for glance-api.conf load once there is a key; the placeholder is refused, and named."""
    text = (
        ETC / "glance-api-replicas.conf"
    ).read_text() + "\n[database]\nconnection = sqlite:////nowhere/glance.sqlite\n"
    path = tmp_path / "glance-api.conf"
    path.write_text(text)
    assert "signing_keys" in settings_of(path).stderr
    path.write_text(text.replace("k1:SECRET", f"k1:{'0123456789abcdef' * 4}"))
    assert settings_of(path).stdout == "api1\n"


NUMBERS = [option.dest for option in options.ALL if isinstance(option, cfg.FloatOpt)]
REFUSED = """
import pathlib, sys
from glance_replicas import errors, settings
path = pathlib.Path(sys.argv[1])
for name in sys.argv[2:]:
    for value in ("nan", "inf", "-inf"):
        path.write_text(f"[database]\\nconnection = sqlite:////nowhere/x\\n[replicas]\\n{name} = {value}\\n")
        try:
            settings.load([str(path)])
        except errors.ConfigError as error:
            print(error)
"""


def test_no_number_is_endless(tmp_path: Path) -> None:
    """`nan` and `inf` are within oslo.config's bounds, and would end every wait or none: each option refuses them."""
    command = [sys.executable, "-W", "ignore", "-c", REFUSED, tmp_path / "glance-api.conf", *NUMBERS]
    said = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    wrong = [f"{name} = {value}: this must be a number, " for name in NUMBERS for value in ("nan", "inf", "-inf")]
    lines = said.stdout.splitlines()
    assert len(NUMBERS) > 4, said.stderr
    assert len(lines) == len(wrong), said.stdout + said.stderr
    assert all(part in line for part, line in zip(wrong, lines, strict=True)), lines


def nginx_conf(folder: Path, changes: dict[str, str]) -> Path:
    """The sample as a whole configuration, in a folder of its own."""
    sample = (ETC / "nginx.conf").read_text()
    for old, new in {"/var/log/nginx": str(folder), **changes}.items():
        assert old in sample
        sample = sample.replace(old, new)
    temporary = " ".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""
    path = folder / "nginx.conf"
    path.write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/error; events {{}} http {{ {temporary} {sample} }}"
    )
    return path


def test_sample_nginx_serves(tmp_path: Path) -> None:
    """The sample nginx sends a host's files: to signatures only, in ranges too, and not by their own path."""
    data = os.urandom(3 << 20)
    listen = f"127.0.0.2:{free_port('127.0.0.2')}"
    ours = {"host_url": f"http://{listen}", "sendfile": "x-accel-redirect"}
    with GlanceSite(tmp_path / "site") as site:
        host = site.add_host("127.0.0.3", processes=1, options={"replicas": ours})
        changes = {"listen 9292": f"listen {listen}", "127.0.0.1:9393": f"{host.address}:{host.port}"}
        changes["/var/lib/glance/image-cache/"] = f"{host.cache_dir}/"
        (tmp_path / "nginx").mkdir()
        command = [need("nginx"), "-c", nginx_conf(tmp_path / "nginx", changes), "-p", tmp_path / "nginx"]
        server = Process(command, tmp_path / "nginx.log")
        try:
            server.wait((tmp_path / "nginx" / "pid").exists)
            client = GlanceClient(f"http://{listen}", "p1", ["admin", "member"], "u1")
            image = client.create("a", data)["id"]
            assert client.download(image).content == data
            assert eventually(lambda: len(client.replicas(image)["replicas"]) == 2)
            url = next(one["url"] for one in client.replicas(image)["replicas"] if one["host"] == host.name)
            whole = requests.get(url, timeout=10)
            assert (whole.status_code, whole.content) == (200, data)
            assert whole.headers["Repr-Digest"].startswith("sha-512=:")
            part = requests.get(url, headers={"Range": "bytes=1000000-1000009"}, timeout=10)
            assert (part.status_code, part.content) == (206, data[1000000:1000010])
            refused = [requests.get(one, timeout=10).status_code for one in (url.partition("?")[0], f"{url}0")]
            assert refused == [403, 403]
            assert requests.get(f"http://{listen}/replica-files/{image}", timeout=10).status_code == 404
            assert "sig=" not in (tmp_path / "nginx" / "glance-api.log").read_text()
        finally:
            server.stop()


UNITS = ["glance-api-downloads.service", "glance-api.service", "replica-janitor.service", "replica-janitor.timer"]


def test_sample_units() -> None:
    """The units start programs and files that there are, and systemd finds nothing to say about their words."""
    units = sorted((ETC / "systemd").iterdir())
    assert [unit.name for unit in units] == UNITS
    starts = [ini(unit).get("Service", "ExecStart") for unit in units if unit.suffix == ".service"]
    assert [Path(words.split()[0]).name for words in starts] == ["uwsgi", "uwsgi", "replica"]
    assert documents.problems(starts[2].partition("/bin/")[2]) == []
    if shutil.which("systemd-analyze"):
        command = ["systemd-analyze", "verify", "--man=no", *units]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        assert not re.search("Unknown|Failed to parse|Invalid", said), said
