"""Options of Glance's, as its configuration was read: by a glance-api that knows them, by a program that does not."""

from collections.abc import Sequence
from typing import Any

from oslo_config import cfg


def peek(conf: cfg.ConfigOpts, wanted: Sequence[Any], *groups: str) -> dict[str, Any]:
    """Options of Glance's by name: what the first of `groups` says that sets it, else the default given here.

    Without groups they are those of `[DEFAULT]`. In a glance-api `conf` knows them all, whatever set them, and no file
    is read again: it may be another one by now. In a program it knows few: the modules that define the others bring in
    all of Glance, seconds at each start, and options of the command line, which cannot be added any more once the files
    are parsed.
    """
    places = [(option, group) for group in reversed(groups or (None,)) for option in wanted]
    unknown = [(option, group) for option, group in places if not _knows(conf, option.dest, group)]
    own = _read_again(conf, unknown)
    found = {option.dest: option.default for option in wanted}
    for option, group in places:
        source = own if (option, group) in unknown else conf
        place = source.get_location(option.dest, group)
        value = (source[group] if group else source)[option.dest]
        if value is not None and place is not None and place.location is not cfg.Locations.opt_default:
            found[option.dest] = value
    return found


def _knows(conf: cfg.ConfigOpts, name: str, group: str | None) -> bool:
    try:
        return name in (conf[group] if group else conf)
    except cfg.NoSuchOptError:  # no such group
        return False


def _read_again(conf: cfg.ConfigOpts, unknown: Sequence[tuple[Any, str | None]]) -> cfg.ConfigOpts:
    """The files of `conf`, read for what it does not know."""
    own = cfg.ConfigOpts()
    for option, group in unknown:
        own.register_opt(option, group)
    if unknown:
        own([], default_config_files=conf.config_file or [], default_config_dirs=conf.config_dir or [])
    return own
