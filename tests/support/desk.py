"""Fixtures of the tests of the tools: the programs, and a site to run them on."""

from collections.abc import Iterator

import pytest
from services.glance.site import GlanceSite

from support.programs import Desk, Programs, replica


@pytest.fixture(scope="session")
def programs() -> Programs:
    """The programs, for the whole run."""
    return replica()


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[Desk]:
    """One site with a running Glance and the ledger's tables, for all tests of the tools."""
    with GlanceSite(tmp_path_factory.mktemp("tools")) as site:
        host = site.add_host(pipeline="stock", processes=1)
        made = Desk(site, host, programs)
        options = {"replicas": {"connection": made.ledger_url}}
        host.configure(options, pipeline="replicas")  # for the programs; the server keeps what it started with
        assert made.run("db", "upgrade").status == 0
        made.image(b"never touched", "keeper")  # an empty store would look unmounted
        yield made
