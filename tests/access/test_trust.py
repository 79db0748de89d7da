"""Whom `trusted_networks` covers, by the address of the socket's other end."""

import json
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
import webob
import webob.exc
from services.glance.site import GlanceSite
from support.worlds.cloud import DATA, Cloud

from glance_replicas.ledger.host_registry import HostRegistry
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.middleware import server
from glance_replicas.middleware.trust import Trust
from glance_replicas.model import Host
from glance_replicas.networks import is_too_wide
from glance_replicas.settings import Settings

pytest_plugins = ["support.worlds.cloud"]

EVERYWHERE = ("192.0.2.0/24", "2001:db8::/32", "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "fc00::/7", "fe80::/10")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Empty tables."""
    made = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    made.upgrade()
    yield made
    made.close()


def trust(ledger: Ledger, *networks: str, url: str = "http://192.0.2.1:9292") -> Trust:
    """What the host `here` trusts."""
    settings = Settings(
        host_name="here",
        host_url=url,
        cache_dir=None,
        database="sqlite://",
        ledger="sqlite://",
        trusted_networks=tuple(ip_network(one) for one in networks or EVERYWHERE),
    )
    return Trust(settings, HostRegistry(settings, ledger).all)


def test_clients_in_the_network(ledger: Ledger) -> None:
    """A client of a trusted network is let in, in both families and on a socket that takes both; others are not."""
    ledger.heartbeat(Host("here", None, "http://192.0.2.1:9292"))
    trusted = trust(ledger, "192.0.2.0/24", "2001:db8::/32")
    for peer in ("192.0.2.7", "::ffff:192.0.2.7", "::ffff:c000:207", "2001:db8::7"):
        assert trusted.covers(peer), peer
    for peer in ("198.51.100.7", "::ffff:198.51.100.7", "2001:db9::7", "", "unix:", "::192.0.2.7", "192.0.2.7.9"):
        assert not trusted.covers(peer), peer


@pytest.mark.parametrize("peer", ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.9", "::ffff:192.0.2.9", "2001:db8::9"])
def test_never_a_host(ledger: Ledger, peer: str) -> None:
    """The address of a host of the ledger, own or another's, is never trusted, in whatever spelling."""
    urls = {"here": "http://192.0.2.1:9292", "other": "http://192.0.2.9:9292", "six": "http://[2001:DB8::0:9]:9292"}
    for name, url in urls.items():
        ledger.heartbeat(Host(name, None, url))
    trusted = trust(ledger)
    assert trusted.covers("192.0.2.7")
    assert not trusted.covers(peer)


def test_never_this_machine(ledger: Ledger) -> None:
    """No address of any interface here is trusted, however many there are."""
    ledger.heartbeat(Host("here", None, "http://192.0.2.1:9292"))
    shown = subprocess.run(["ip", "-j", "address"], capture_output=True, check=True, text=True).stdout
    own = [address["local"] for link in json.loads(shown) for address in link["addr_info"]]
    trusted = trust(ledger, "0.0.0.0/0", "::/0")
    for peer in [*own, "127.0.0.1", "127.8.9.10", "::1", "0.0.0.0", "::"]:
        assert not trusted.covers(peer), peer
        assert not trusted.covers(f"::ffff:{peer}" if ":" not in peer else peer), peer


def test_nobody_while_the_hosts_are_not_known(ledger: Ledger, tmp_path: Path) -> None:
    """Without the list of hosts, or the address of one, anybody may be a host: nobody is trusted."""
    lost = Ledger(f"sqlite:///{tmp_path}/none/ledger.sqlite")
    assert not trust(lost).covers("192.0.2.7")
    ledger.heartbeat(Host("here", None, "http://192.0.2.1:9292"))
    assert trust(ledger).covers("192.0.2.7")
    ledger.heartbeat(Host("named", None, "http://nowhere.invalid:9292"))
    assert not trust(ledger).covers("192.0.2.7")


@pytest.mark.parametrize(
    ("network", "wide"),
    [
        ("0.0.0.0/0", True),
        ("::/0", True),
        ("0.0.0.0/1", True),
        ("8000::/1", True),
        ("10.0.0.0/8", False),
        ("fc00::/7", False),
    ],
)
def test_too_wide(network: str, wide: bool) -> None:
    """A network that is everybody's is told from the widest ones of one owner."""
    assert is_too_wide(ip_network(network)) == wide


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        ("192.0.2.7", 200),
        ("::ffff:192.0.2.7", 200),
        ("198.51.100.7", 403),
        ("127.0.0.1", 403),
        ("192.0.2.9", 403),
        ("", 403),
    ],
)
def test_what_the_filter_lets_in(cloud: Cloud, peer: str, status: int) -> None:
    """All bytes without a signature for a client of a trusted network; not for others, for this machine, or for a host,
    whatever address a header claims."""
    here = cloud.host("here", trusted_networks=(ip_network("192.0.2.0/24"), ip_network("127.0.0.0/8")))
    cloud.host("other", "http://192.0.2.9:9292")
    name = cloud.cached(here)
    request = webob.Request.blank(f"/replicas/{name}", environ={"REMOTE_ADDR": peer})
    if status != 200:
        request.headers["X-Forwarded-For"] = request.headers["Forwarded"] = "192.0.2.7"
    answer = request.get_response(server.assembled(here, webob.exc.HTTPNotFound()))
    assert (answer.status_int, answer.body == DATA) == (status, status == 200)


def test_everybody_stops_the_start(tmp_path: Path) -> None:
    """`trusted_networks = 0.0.0.0/0` stops the start, and the log names the option and the remedy."""
    with GlanceSite(tmp_path / "site") as site:
        host = site.add_host(options={"replicas": {"trusted_networks": "10.0.0.0/8, 0.0.0.0/0"}}, start=False)
        with pytest.raises(RuntimeError, match=r"trusted_networks = 0\.0\.0\.0/0 trusts everybody"):
            host.start()
