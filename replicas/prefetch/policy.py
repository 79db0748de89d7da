"""What a policy is asked and what it answers: which copies this host should have ahead of need.

A policy is an entry point of `glance_replicas.policies`, named in `[replicas] policies`: something that is called with
the `Settings` once and gives a `Policy`. docs/operations.md shows one.
"""

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..model import Host, Image
from ..settings import Settings

GROUP = "glance_replicas.policies"


class Priority(enum.IntEnum):
    """Which copies are fetched first; normal and low ones keep to `copy_hours`."""

    LOW = -100
    NORMAL = 0
    HIGH = 100


@dataclass(frozen=True)
class Described:
    """An image with what people say of it."""

    image: Image
    tags: frozenset[str] = frozenset()
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class World:
    """What is known when a policy is asked. What raises CatalogueError or LedgerError may be left to the caller."""

    here: str  # name of this host
    hosts: Sequence[Host]  # that live, this one among them, by name; all hosts see the same ones
    images: Callable[[], Iterator[Described]]  # active ones that can be verified, by id: a new stream at each call
    popular: Callable[[int, int], Sequence[tuple[str, int]]]  # (days, at most): ids with downloads, most first


@dataclass(frozen=True)
class Wish:
    """This host should have this image. Wishes for what it has already are right: they keep others from its room."""

    image_id: str
    why: str  # shown with the copy
    priority: Priority = Priority.LOW
    pin: bool = False  # and keep it


class Policy(Protocol):
    """Decides for one host. Hosts do not talk to each other: what is to be so many times must follow from `World`."""

    def wishes(self, world: World) -> Iterable[Wish]:
        """What this host should have. Called every few minutes; an exception costs this policy's wishes, no more.

        The janitor waits for it: seconds, not minutes.
        """


PolicyFactory = Callable[[Settings], Policy]
