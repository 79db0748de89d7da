"""Glance's options as its configuration was read: by a glance-api that knows them, by a program that does not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from glance_replicas.glance_options import peek

FOLDER = cfg.StrOpt("filesystem_store_datadir", default="/var/lib/ours")
SIZE = cfg.IntOpt("image_cache_max_size", default=10)
GROUPS = ("fast", "backend_defaults")


def parsed(path: Path, known: Sequence[tuple[Any, str | None]] = ()) -> cfg.ConfigOpts:
    """A configuration that knows these options; those of the store as glance_store registers them."""
    conf = cfg.ConfigOpts()
    for option, group in known:
        conf.register_opt(option, group)
    conf([], default_config_files=[str(path)])
    if known:
        conf.set_default(FOLDER.dest, None, "fast")
    return conf


KNOWN = [(cfg.IntOpt(SIZE.dest, default=99), None)]
KNOWN += [(cfg.StrOpt(FOLDER.dest, default="/var/lib/glance"), group) for group in GROUPS]


@pytest.mark.parametrize("known", [KNOWN, []], ids=["glance-api", "program"])
@pytest.mark.parametrize(
    ("text", "folder", "size"),
    [
        ("", "/var/lib/ours", 10),
        ("[DEFAULT]\nimage_cache_max_size = 7\n[fast]\nfilesystem_store_datadir = /a\n", "/a", 7),
        ("[backend_defaults]\nfilesystem_store_datadir = /b\n", "/b", 10),
        ("[backend_defaults]\nfilesystem_store_datadir = /b\n[fast]\nfilesystem_store_datadir = /a\n", "/a", 10),
    ],
)
def test_options_are_found(tmp_path: Path, known: list[Any], text: str, folder: str, size: int) -> None:
    """The first group that says something counts, then our default, whoever knows the option by another one."""
    path = tmp_path / "glance-api.conf"
    path.write_text(text)
    conf = parsed(path, known)
    assert peek(conf, [FOLDER], *GROUPS) == {FOLDER.dest: folder}
    assert peek(conf, [SIZE]) == {SIZE.dest: size}


def test_a_glance_api_does_not_read_its_files_again(tmp_path: Path) -> None:
    """What Glance has read counts, though the file is another one by now, or gone; what was overridden counts too."""
    path = tmp_path / "glance-api.conf"
    path.write_text("[DEFAULT]\nimage_cache_max_size = 7\n[fast]\nfilesystem_store_datadir = /a\n")
    conf = parsed(path, KNOWN)
    path.write_text("[DEFAULT]\nimage_cache_max_size = 8\n")
    assert peek(conf, [SIZE]) == {SIZE.dest: 7}
    path.unlink()
    assert peek(conf, [FOLDER], *GROUPS) == {FOLDER.dest: "/a"}
    conf.set_override(SIZE.dest, 9)
    assert peek(conf, [SIZE]) == {SIZE.dest: 9}
