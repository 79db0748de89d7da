"""Cinder's "not found", by who asks."""

import uuid
from pathlib import Path

import pytest
from services.configuration import conf_text
from services.stores.cinder import Cinder
from support.places.readers import load

from glance_replicas.errors import Absent, Unreachable
from glance_replicas.model import Location

GIB = 1 << 30


def test_what_a_user_may_not_see_is_not_missing(cinder: Cinder, tmp_path: Path) -> None:
    """Cinder hides volumes of other projects by a 404: to a user who is no administrator it says nothing."""
    cinder.keystone.add_member("plain")
    stores = {"all": cinder.store_options(), "own": cinder.store_options() | {"cinder_store_user_name": "plain"}}
    enabled = {"enabled_backends": "all:cinder, own:cinder"}
    sources = load(tmp_path, conf_text({"DEFAULT": enabled, **stores, **cinder.host_options()}))
    volume = cinder.request("POST", "/volumes", {"volume": {"size": 1, "name": "here"}})[1]["volume"]["id"]
    absent = uuid.uuid4()
    for store, kind in (("all", Absent), ("own", Unreachable)):
        assert sources.size(Location("x", f"cinder://{store}/{volume}", {"store": store})) == GIB
        with pytest.raises(kind):
            sources.size(Location("x", f"cinder://{store}/{absent}", {"store": store}))
        with pytest.raises(kind):
            sources.open(Location("x", f"cinder://{store}/{absent}", {"store": store}))
