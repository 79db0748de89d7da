"""What an answer from a complete file costs: statements to the database, and ranges that are reckoned without WebOb."""

from collections.abc import Callable, Iterator

import pytest
import requests
import webob
from hypothesis import given
from hypothesis import strategies as st
from services.configuration import SIGNING_KEYS
from services.databases.servers import Postgres
from services.glance.site import GlanceHost, GlanceSite
from support.worlds.scenes import new_image

from glance_replicas.middleware.sending import serve
from glance_replicas.model import Digest, Image
from glance_replicas.signing import parse_keys, sign

SIZE = 3 << 20
TIMES = 5  # now and then something else asks the database
NAME = "test_cost"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[GlanceHost]:
    """One host whose database writes down every statement, no janitor beside it."""
    url = postgres.create_glance(NAME)
    postgres.execute(f"ALTER DATABASE {NAME} SET log_statement = 'all'")
    with GlanceSite(tmp_path_factory.mktemp("site"), url) as made:
        yield made.add_host("127.0.0.2", processes=1, threads=4, options={"replicas": {"janitor": "false"}})


def statements(postgres: Postgres, ask: Callable[[], requests.Response], status: int) -> list[str]:
    """Their first words, of the answer that took the fewest."""
    all_ = []
    for _ in range(TIMES):
        before = len(postgres.log())
        assert ask().status_code == status
        lines = [line.partition("LOG:  statement: ") for line in postgres.log()[before:].splitlines()]
        all_.append([" ".join(text.split()[:2]) for _, found, text in lines if found])
    return min(all_, key=len)


def test_statements_of_an_answer(host: GlanceHost, postgres: Postgres) -> None:
    """A hit, a range of it and a 304 ask for the image once, as Glance does; so does a per-host URL. Nothing else."""
    image_id, data = new_image(host, SIZE)
    client = host.client()
    first = client.download(image_id)
    assert first.content == data
    signed = sign(f"{host.url}/replicas/{image_id}", parse_keys(SIGNING_KEYS), 600)
    glances, our_own = (["SELECT 1", "BEGIN", f"SELECT images.id{end}", "ROLLBACK"] for end in ("", ","))
    etag = {"If-None-Match": first.headers["ETag"]}
    ours: dict[str, tuple[Callable[[], requests.Response], int, list[str]]] = {
        "hit": (lambda: client.download(image_id), 200, glances),
        "range": (lambda: client.download(image_id, headers={"Range": "bytes=5-99"}), 206, glances),
        "304": (lambda: client.download(image_id, headers=etag), 304, glances),
        "per-host URL": (lambda: requests.get(signed, timeout=60), 200, our_own),
    }
    found = {name: statements(postgres, ask, status) for name, (ask, status, _) in ours.items()}
    assert found == {name: wanted for name, (_, _, wanted) in ours.items()}


IMAGE = Image("0b0e2cbd-5c1f-4b5f-9d9c-1f0b0e2cbd5c", "active", 1000, Digest("md5", "0" * 32))
TAGS = [f'"md5-{"0" * 32}"', '"of another"', "*"]
NUMBERS = st.integers(0, 1100)
RANGES = st.one_of(
    st.builds("bytes={}-{}".format, NUMBERS, NUMBERS),
    st.builds("bytes={}-".format, NUMBERS),
    st.builds("bytes=-{}".format, NUMBERS),
    st.sampled_from(["bytes=0-0,5-9", "bytes=-", "bytes=x-", "items=0-5", "", "bytes=5-1"]),
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={"Range": RANGES, "If-None-Match": st.sampled_from(TAGS), "If-Range": st.sampled_from(TAGS[:2])},
)


@given(HEADERS)
def test_the_span_is_what_the_answer_carries(headers: dict[str, str]) -> None:
    """Whatever range and conditions a request has: what is opened for it is what is sent."""
    asked = serve.span(webob.Request.blank("/", headers=headers), IMAGE)
    read: list[tuple[int, int]] = []

    def body(start: int, stop: int) -> Iterator[bytes]:
        read.append((start, stop))
        yield bytes(stop - start)

    request = webob.Request.blank("/", headers=headers)
    answer = request.get_response(serve.response(request, IMAGE, body, lambda sent, expected: None, ""))
    assert len(answer.body) == int(answer.headers.get("Content-Length", 0))
    assert read == ([] if asked is None else [asked])
    assert answer.status_int in ((304, 416) if asked is None else (200, 206))
