"""Names of one copy: what two URLs and the stores' options say of the object behind them."""

import hashlib
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from services.stores.swift import Swift
from support.places.readers import load, swift_url
from support.programs import Done, Programs
from support.worlds.deep import Deep, image_id

from glance_replicas import settings
from glance_replicas.catalogue.images import Catalogue
from glance_replicas.errors import Unreachable
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.model import Location, Result
from glance_replicas.removal.causes import DAMAGED
from glance_replicas.removal.flow import Removal
from glance_replicas.removal.proof import Proof, Refusal
from glance_replicas.removal.removal_facts import RemovalFacts, RemovalOrder
from glance_replicas.stores.identity import ObjectIdentity, server
from glance_replicas.stores.s3.reader import identity_of
from glance_replicas.stores.sources import Sources, from_settings
from glance_replicas.stores.swift.account import account_of
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify.copy_identities import CopyIdentities

pytest_plugins = ["support.desk"]

DATA = random.Random(21).randbytes(70_000)
CONTAINER = "named-twice"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://s3.host", "https://S3.host:443/", True),
        ("s3.host:80", "http://s3.host.", True),
        ("s3.host:8080", "s3.host", False),
        ("s3.host", "s4.host", False),
        ("https://s3.amazonaws.com", "s3.eu-west-1.amazonaws.com", True),
        ("s3-eu-west-1.amazonaws.com", "https://s3.dualstack.eu-west-1.amazonaws.com", True),
        ("s3.amazonaws.com", "s3.cn-north-1.amazonaws.com.cn", False),
        ("s3.amazonaws.com.evil.net", "s3.amazonaws.com", False),
    ],
)
def test_servers_of_s3(one: str, other: str, same: bool) -> None:
    """Scheme, port and capitals make no second copy, nor does another of Amazon's servers; another server does."""
    first, second = (identity_of(address, "key", "b", "o") for address in (one, other))
    assert (first.key == second.key, first.is_surely(second)) == (same, same)
    assert first.key != identity_of(one, "key", "b", "p").key != identity_of(one, "key", "c", "p").key


def test_two_keys_of_one_server() -> None:
    """A bucket of the same name may be another user's: it counts once, and is no duplicate beyond doubt."""
    mine, theirs = identity_of("s3.host", "key", "b", "o"), identity_of("s3.host", "other", "b", "o")
    assert mine.key == theirs.key
    assert not mine.is_surely(theirs)
    assert identity_of("s3.amazonaws.com", "key", "b", "o").is_surely(
        identity_of("s3.amazonaws.com", "other", "b", "o")
    )


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://swift/v1/AUTH_abc", "AUTH_abc"),
        ("https://swift/v1/AUTH%5Fabc/", "AUTH_abc"),
        ("https://ceph/swift/v1", "project"),
        ("https://ceph/swift", "project"),
        ("https://ceph", "project"),
    ],
)
def test_accounts(url: str, found: str) -> None:
    """The account is the storage URL's last word, or the project where it has none."""
    assert account_of(url, "project") == found
    assert server(url) in ("swift", "ceph")


class Fleeting(Sources):
    """Asked twice: the first time the place cannot be told."""

    def __init__(self) -> None:
        super().__init__([])
        self.asked = 0

    def identify(self, location: Location) -> ObjectIdentity:
        self.asked += 1
        if self.asked == 1:
            raise Unreachable("Keystone did not answer")
        return ObjectIdentity("known")


def test_what_could_not_be_told_once_stays_unknown() -> None:
    """Keystone comes back in the middle of a run: what was not known of a container is not known to its end."""
    said: list[str] = []
    places = CopyIdentities(Fleeting(), said.append)
    first, second = (Location(name, f"swift+config://a/c/{name}") for name in ("x", "y"))
    assert not places.is_known(first)
    assert not places.is_known(second)
    assert places.is_known(Location("x", "swift+config://b/c/x"))
    assert len(said) == 1


class Twice(Deep):
    """A Swift store whose references are the test's: `own`, `same` (another user of its project), `far` (another)."""

    def __init__(self, folder: Path, swift: Swift, programs: Programs) -> None:
        super().__init__(folder, swift, programs)
        self.connection.put_container(CONTAINER)
        options = swift.store_options()
        name = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        self.users = {
            "own": options["swift_store_user"],
            "same": swift.keystone.add_user(f"same-{name}"),
            "far": swift.keystone.add_user(f"far-{name}", f"project-{name}"),
        }
        text = "".join(
            f"[{one}]\nuser = {user}\nkey = {swift.keystone.password}\nauth_address = {swift.keystone.auth_url}\n"
            "project_domain_id = default\nuser_domain_id = default\n"
            for one, user in self.users.items()
        )
        (folder / "swift.conf").write_text(text)
        plain = ("swift_store_user", "swift_store_key", "swift_store_auth_address")
        named = {"swift_store_config_file": str(folder / "swift.conf"), "default_swift_reference": "own"}
        self.host.configure({"fast": dict.fromkeys(plain, "") | named | {"swift_store_container": CONTAINER}})
        assert self.run("db", "upgrade").status == 0

    def far_connection(self) -> Any:
        """The other project's."""
        import swiftclient

        session = self.swift.keystone.session(self.users["far"])
        url = f"{self.swift.url}/v1/AUTH_{session.get_project_id()}"
        return swiftclient.Connection(session=session, retries=1, os_options={"object_storage_url": url})


@pytest.fixture
def twice(tmp_path: Path, swift: Swift, programs: Programs) -> Iterator[Twice]:
    made = Twice(tmp_path / "site", swift, programs)
    yield made
    for one in made.connection.get_container(CONTAINER)[1]:
        made.connection.delete_object(CONTAINER, one["name"])
    made.close()


def damaged_beside(twice: Twice, *names: str) -> str:
    """An image with a damaged object, and these names of an intact one."""
    name = image_id(900)
    twice.connection.put_object(CONTAINER, name, DATA)
    twice.connection.put_object(twice.swift.container, name, DATA[::-1])
    twice.image(name, DATA, f"swift+config://own/{twice.swift.container}/{name}", *names)
    return name


def prune(twice: Twice, *words: str) -> Done:
    return twice.run("prune", image_id(900), "--min-durable", "2", "--yes", *words)


@pytest.mark.parametrize("second", ["same", "url", "same url"])
def test_two_names_of_one_object(twice: Twice, second: str) -> None:
    """A reference, another one, and a URL with whosever credentials lead to one account: one copy, not two."""
    name = image_id(900)
    url = swift_url(twice.swift, name, CONTAINER)
    admin, other = quote(twice.users["own"]), quote(twice.users["same"])
    names = {"url": url, "same url": url.replace(f"{admin}:", f"{other}:")}
    damaged_beside(
        twice,
        f"swift+config://own/{CONTAINER}/{name}",
        names.get(second, f"swift+config://{second}/{CONTAINER}/{name}"),
    )
    done = prune(twice)
    assert done.status == 1, done.out + done.err
    assert "1 other durable copy is proven intact, 2 must stay" in done.out
    done = twice.run("prune", name, "--duplicates", "--yes", "-f", "json")
    assert [(row["Action"], row["Kind"]) for row in done.rows] == [
        ("removed", "swift+config" if "url" not in second else "swift+http")
    ]
    assert len(twice.site.locations(name)) == 2


@pytest.mark.parametrize("seen", ["own", "url"])
def test_what_others_see_of_another_name(twice: Twice, seen: str) -> None:
    """Damage that came to the ledger after our looks holds a removal back, by whichever name of the object."""
    name = image_id(900)
    urls = {"own": f"swift+config://own/{CONTAINER}/{name}", "url": swift_url(twice.swift, name, CONTAINER)}
    damaged_beside(twice, *urls.values())
    found = settings.load([str(twice.host.config_file)])
    catalogue, ledger, sources = Catalogue(found.database), Ledger(found.ledger), from_settings(found)
    reasons = RemovalFacts(catalogue, ledger, dead_after_seconds=60)
    image = catalogue.image(name)
    assert image
    removal = Removal(
        *(catalogue, ledger, sources, RemovalOrder(partial(reasons.damaged, states=DAMAGED))),
        workers=1,
        places=CopyIdentities(sources),
    )
    (step,) = removal.plan(image, image.locations[:1])
    assert isinstance(step.answer, Proof), step.answer
    ledger.record([Result(Location(name, urls[seen]), Verdict.CORRUPT, Evidence.FULL)])
    done = removal.act(step)
    assert isinstance(done.answer, Refusal)
    assert "no other durable copy of the image is proven intact" in done.answer.reason
    assert len(twice.site.locations(name)) == 3


def test_two_accounts_are_two_copies(twice: Twice) -> None:
    """The same container and name in another project's account is another copy, and no duplicate."""
    name = image_id(900)
    damaged_beside(twice, *(f"swift+config://{one}/{CONTAINER}/{name}" for one in ("own", "far")))
    far = twice.far_connection()
    far.put_container(CONTAINER)
    far.put_object(CONTAINER, name, DATA)
    far.close()
    done = twice.run("prune", name, "--duplicates", "--yes")
    assert (done.status, len(twice.site.locations(name))) == (0, 3), done.out + done.err
    done = prune(twice)
    assert done.status == 0, done.out + done.err
    assert len(twice.site.locations(name)) == 2


def test_an_address_of_ones_own(twice: Twice) -> None:
    """With `swift_store_endpoint` the account is that of this address, and nobody else's."""
    name = image_id(900)
    twice.host.configure({"fast": {"swift_store_endpoint": twice.swift.url + twice.swift.account_path}})
    damaged_beside(twice, *(f"swift+config://{one}/{CONTAINER}/{name}" for one in ("own", "same")))
    done = prune(twice)
    assert "1 other durable copy is proven intact, 2 must stay" in done.out, done.out + done.err


def test_nobody_says_which_account_it_is(twice: Twice) -> None:
    """Keystone refuses: nothing is a duplicate, and the status says that something was not known."""
    name = image_id(900)
    damaged_beside(twice, *(f"swift+config://{one}/{CONTAINER}/{name}" for one in ("own", "same")))
    path = twice.site.folder / "swift.conf"
    path.write_text(path.read_text().replace(f"key = {twice.swift.keystone.password}", "key = wrong"))
    done = twice.run("prune", name, "--duplicates", "--yes")
    assert (done.status, len(twice.site.locations(name))) == (3, 3), done.out + done.err
    assert "it is not known whether its copies have other names, too" in done.err


def test_two_s3_stores_of_one_server(tmp_path: Path) -> None:
    """The store's options say which server holds an object, whatever its URL does: two stores, one bucket, one copy."""
    hosts = {"one": "https://s3.host", "same": "http://S3.host:80/", "far": "https://s3.far"}
    text = "".join(
        f"[{name}]\ns3_store_host = {host}\ns3_store_access_key = k\ns3_store_secret_key = s\ns3_store_bucket = b\n"
        for name, host in hosts.items()
    )
    sources = load(tmp_path, f"[DEFAULT]\nenabled_backends = {', '.join(f'{name}:s3' for name in hosts)}\n{text}")
    places = CopyIdentities(sources)
    one, same, far = (Location("x", f"s3+https://{name}.example/b/x", {"store": name}) for name in hosts)
    assert places.surely(one, same)
    assert places.identity(one) != places.identity(far)
    assert places.identity(one) != places.identity(Location("x", "s3://s3.host/c/x", {"store": "one"}))
