"""What a feature is, and the small questions that many features ask."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from rankloom.finding import Severity
from rankloom.validate.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rankloom.validate.engines.selection import Chosen
    from rankloom.validate.engines.subject import Subject

_SHOWN = 3


class Needs(StrEnum):
    """What has to be at hand to see a feature."""

    CONFIG = "config"
    TENSORS = "tensors"
    BASE = "base"
    FINGERPRINTS = "fingerprints"


@dataclass(frozen=True, slots=True)
class Hit:
    """That an adapter has a feature.

    Attributes:
        what: what of the adapter, for messages.
        where: config field or tensor.
    """

    what: str
    where: str = ""


Find = "Callable[[Subject, Chosen], Iterator[Hit]]"


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that an adapter has or does, which engines treat differently.

    Attributes:
        name: as the engines' files write it.
        rule: the rule that an engine's verdict on it becomes.
        needs: what must be at hand to see it.
        find: says where an adapter has it.
    """

    name: str
    rule: Rule
    needs: Needs
    find: Callable[[Subject, Chosen], Iterator[Hit]]


def feature(
    rule: str, name: str, needs: Needs, title: str, fix: str, find: Callable[..., Iterator[Hit]]
) -> Feature:
    """Return a feature with its rule."""
    why = "An engine that does not know it refuses the adapter, or serves something else."
    asked = Rule(rule, Severity.ERROR, title, why, fix, option="--engine")
    return Feature(name, asked, needs, find)


def some(names: Sequence[str]) -> str:
    """Return the first few of many names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def leaf(module: str) -> str:
    """Return the last part of a module's name."""
    return module.rpartition(".")[2]
