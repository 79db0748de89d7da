"""The file `[replicas] rules_file` and the policy `rules` that follows it; etc/replica-rules.yaml explains its keys."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from ..settings import Settings
from .policy import Priority, Wish, World
from .rules import Match, Rule, Top, wishes

VISIBILITIES = ("public", "private", "shared", "community")
MOST_DAYS = 30  # that counts of use are kept for
_SIZE = re.compile(r"(\d+)([KMGT]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class RulesFile:
    """The policy `rules`. The file is read each time; a bad one raises ConfigError and nothing is wished for."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.rules_file

    def wishes(self, world: World) -> Iterable[Wish]:
        """What the rules want this host to have; nothing without a file."""
        return wishes(read(self._path), world) if self._path else ()


def read(path: str) -> tuple[Rule, ...]:
    """The rules in a file. Raises ConfigError."""
    try:
        return parse(Path(path).read_text(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or 'is no UTF-8 text'}") from error


def parse(text: str, file: str) -> tuple[Rule, ...]:
    """The rules of a file. Raises ConfigError naming the file, the rule, the key and what may be written there."""
    try:
        found = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{file}: {line}{error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: {' '.join(str(error).split())}") from error
    written = _mapping({} if found is None else found, ("rules",), file).get("rules") or []
    if not isinstance(written, list):
        raise ConfigError(f"{file}: rules: write a list, each rule beginning with a dash")
    rules = tuple(_rule(rule, number, file) for number, rule in enumerate(written, 1))
    names = [rule.name for rule in rules]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{file}: two rules have the name {twice!r}; give each its own")
    return rules


class _Loader(yaml.SafeLoader):
    """YAML's own types, and no key twice: the later one would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in the base, or ConstructorError."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _rule(written: Any, number: int, file: str) -> Rule:
    name = written.get("name", f"rule {number}") if isinstance(written, dict) else f"rule {number}"
    where = f"{file}: {name if name == f'rule {number}' else f'rule {number} ({name})'}"
    keys = ("name", "match", "copies", "priority", "pin", "per_zone", "zones")
    given = _mapping(written, keys, where)
    for key in ("match", "copies"):
        if key not in given:
            raise ConfigError(f"{where}: {key} is missing")
    if not isinstance(name, str) or not 0 < len(name) <= 200:
        raise ConfigError(f"{where}: name: write a text of at most 200 characters")
    copies = given["copies"]
    priorities = tuple(priority.name.lower() for priority in reversed(Priority))
    return Rule(
        name=name,
        match=_match(given["match"], f"{where}: match"),
        copies=None if copies == "all" else _number(copies, f"{where}: copies", " or all"),
        priority=Priority[_one_of(given.get("priority", "low"), priorities, f"{where}: priority").upper()],
        pin=_flag(given, "pin", where),
        per_zone=_flag(given, "per_zone", where),
        zones=_texts(given["zones"], f"{where}: zones") if "zones" in given else (),
    )


def _match(written: Any, where: str) -> Match:
    texts, sizes = ("tag", "name", "owner", "visibility"), ("min_size", "max_size")
    given = _mapping(written, (*texts, "property", "popular", *sizes), where)
    if not given:
        raise ConfigError(f'{where}: say which images are meant; name: "*" means all')
    for text in _texts(given.get("visibility", VISIBILITIES), f"{where}: visibility"):
        _one_of(text, VISIBILITIES, f"{where}: visibility")
    found: dict[str, Any] = {key: _texts(given[key], f"{where}: {key}") for key in texts if key in given}
    found |= {key: _size(given[key], f"{where}: {key}") for key in sizes if key in given}
    if "property" in given:
        pairs = _mapping(given["property"], None, f"{where}: property")
        found["property"] = {key: _texts(value, f"{where}: property: {key}") for key, value in pairs.items()}
    if "popular" in given:
        found["popular"] = _popular(given["popular"], f"{where}: popular")
    return Match(**found)


def _popular(written: Any, where: str) -> Top:
    given = _mapping(written, ("top", "days"), where)
    days = _number(given.get("days", 7), f"{where}: days")
    if days > MOST_DAYS:
        raise ConfigError(f"{where}: days: counts are kept for {MOST_DAYS} days")
    return _number(given.get("top"), f"{where}: top"), days


def _mapping(written: Any, keys: Collection[str] | None, where: str) -> dict[str, Any]:
    """A mapping with text keys, of these only."""
    if not isinstance(written, dict) or not all(isinstance(key, str) for key in written):
        raise ConfigError(f"{where}: write {', '.join(keys) if keys else 'names'} with a colon and a value each")
    for key in written if keys is not None else ():
        _one_of(key, keys or (), where)
    return written


def _one_of(value: Any, allowed: Collection[str], where: str) -> str:
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{where}: {value} is none of {', '.join(allowed)}{hint}")
    return str(value)


def _texts(written: Any, where: str) -> tuple[str, ...]:
    """One text, or a list of them. Nothing else: YAML's 1.10 is 1.1 and its yes is true, Glance's are not."""
    values = tuple(written) if isinstance(written, list | tuple) else (written,)
    for value in values:
        if not isinstance(value, str):
            raise ConfigError(f"{where}: {value!r} is no text for YAML: put it in quotes")
    if not values:
        raise ConfigError(f"{where}: the list is empty; leave the key out, or name what is meant")
    return values


def _number(written: Any, where: str, also: str = "") -> int:
    if not isinstance(written, int) or isinstance(written, bool) or written < 1:
        raise ConfigError(f"{where}: {written} is not a whole number above 0{also}")
    return written


def _size(written: Any, where: str) -> int:
    found = _SIZE.fullmatch(str(written).upper())
    if found is None or isinstance(written, bool):
        raise ConfigError(f"{where}: {written} is not a size: write bytes, or a number and K, M, G or T, such as 20G")
    return int(found[1]) * _UNITS[found[2]]


def _flag(given: Mapping[str, Any], key: str, where: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: {key}: {value} is neither true nor false")
    return value
