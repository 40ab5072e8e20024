"""A recipe on its way from YAML: what was written, and where, before it is checked."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rankloom.errors import RefError
from rankloom.recipe.methods import hint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from rankloom.recipe.source import Path, Source


@dataclass(frozen=True, slots=True)
class Entry:
    """One adapter.

    Attributes:
        ref: as it was written.
        where: place of the entry.
        parameters: its own.
    """

    ref: str
    where: Path
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """What all dialects come to.

    Attributes:
        source: the document.
        entries: the adapters.
        method: its name.
        method_at: where that stands.
        parameters: of the method.
        base: the base, if one is named.
        rank: what was asked for.
        rank_at: where.
        dtype: of a checkpoint that the composition is applied to.
        engines: serving engines that must take the rank.
        allow_no_effect: whether an adapter may leave a target as it is.
        is_foreign: the base may be a name that only the other tool knows.
    """

    source: Source
    entries: tuple[Entry, ...]
    method: str
    method_at: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    base: str | None = None
    rank: object = None
    rank_at: Path = ()
    dtype: str | None = None
    engines: object = None
    allow_no_effect: object = False
    is_foreign: bool = False


def mapping(source: Source, value: object, where: Path, known: Collection[str]) -> dict[str, Any]:
    """Return a value that must be a mapping with known keys.

    Raises:
        RefError: it is none, or a key is unknown; the message names the line.
    """
    if not isinstance(value, dict):
        message = f"{_short(value)} stands where keys are expected"
        raise source.error(where, message, hint("", known))
    for key in value:
        if key not in known:
            raise source.error((*where, key), f"unknown key {key!r}", hint(key, known))
    return value


def text(source: Source, value: object, where: Path, what: str) -> str:
    """Return a value that must be a text.

    Raises:
        RefError: it is none, or empty.
    """
    if not isinstance(value, str) or not value:
        raise source.error(where, f"{what} is {_short(value)}, not a text", f"write {what}: …")
    return value


def _short(value: object) -> str:
    return "nothing" if value is None else repr(value)[:60]


@contextmanager
def at(source: Source, where: Path) -> Iterator[None]:
    """Let every complaint of the block name the line of the value at ``where``.

    Raises:
        RefError: what the block raised, with the line.
    """
    try:
        yield
    except RefError as error:
        what = error.message.removeprefix("MRG003 ")
        raise source.error(where, what, error.hint) from error
