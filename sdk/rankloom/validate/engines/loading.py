"""Reads the engines' files, and holds them to their schema."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from rankloom.validate.engines.engine import Cell, Engine, Ranks, Reads, Verdict
from rankloom.validate.engines.features import FEATURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.resources.abc import Traversable

SCHEMA = 1
_TEXTS = ("name", "title", "version", "url", "read")
_KEYS = {"schema", *_TEXTS, "ranks", "reads", "cells", "sources"}


class EngineFileError(ValueError):
    """An engine's file breaks the schema."""


def parse(text: str, file: str = "") -> Engine:
    """Read one file.

    Args:
        text: its TOML.
        file: its name, for messages.

    Raises:
        EngineFileError: a key is unknown, missing or of another type; a feature is unknown, has
            no cell, or two.
    """
    try:
        value = tomllib.loads(text)
        _keys(value, _KEYS, required=_KEYS - {"ranks", "reads", "sources"})
        _check(value["schema"] == SCHEMA, f"schema is {value['schema']}, not {SCHEMA}")
        return Engine(
            **{name: _text(value, name) for name in _TEXTS},
            ranks=Ranks(**_typed(Ranks, value.get("ranks", {}))),
            reads=Reads(**_typed(Reads, value.get("reads", {}))),
            cells=_cells(value["cells"]),
            sources=_sources(value.get("sources", {})),
        )
    except ValueError as error:
        message = f"{file}: {error}"
        raise EngineFileError(message) from None


def _sources(value: Mapping[str, object]) -> dict[str, str]:
    return {source: _text(value, source) for source in value}


def _check(sound: bool, message: str) -> None:
    if not sound:
        raise ValueError(message)


def _keys(value: Mapping[str, Any], known: set[str], required: set[str]) -> None:
    _check(not value.keys() - known, f"unknown keys: {sorted(value.keys() - known)}")
    _check(not required - value.keys(), f"missing keys: {sorted(required - value.keys())}")


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    _check(isinstance(found, str) and bool(found.strip()), f"{name} is {found!r}, no text")
    return str(found)


def _typed(kind: type[Ranks | Reads], value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a class whose fields are whole numbers or collections of one sort."""
    names = {item.name: str(item.type) for item in fields(kind)}
    _keys(value, set(names), set())
    return {name: _value(name, names[name], found) for name, found in value.items()}


def _value(name: str, kind: str, found: object) -> object:
    if "[" not in kind:
        _check(type(found) is int and found > 0, f"{name} is {found!r}, no whole number from 1")
        return found
    item = int if "int" in kind else str
    sound = isinstance(found, list) and found and all(type(part) is item for part in found)
    _check(bool(sound), f"{name} is {found!r}, no list of {item.__name__}")
    parts: list[Any] = found if isinstance(found, list) else []
    return frozenset(parts) if kind.startswith("frozenset") else tuple(parts)


def _cells(listed: object) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    for number, value in enumerate(listed if isinstance(listed, list) else [], 1):
        try:
            for feature, cell in _group(value):
                _check(feature in FEATURES, f"there is no feature {feature!r}")
                _check(feature not in cells, f"{feature} has two cells")
                cells[feature] = cell
        except ValueError as error:
            message = f"cell {number}: {error}"
            raise ValueError(message) from None
    _check(not FEATURES.keys() - cells, f"no cell for {sorted(FEATURES.keys() - cells)}")
    return cells


def _group(value: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    _keys(value, {"features", "verdict", "source", "reason", "remedy"}, {"features", "source"})
    verdict = Verdict(_text(value, "verdict"))
    if verdict is not Verdict.ACCEPT or "reason" in value:
        _text(value, "reason")
    cell = Cell(verdict, _text(value, "source"), value.get("reason", ""), value.get("remedy", ""))
    features = value["features"]
    _check(isinstance(features, list) and bool(features), "features is no list of names")
    for feature in features:
        yield feature, cell


def files() -> list[Traversable]:
    """Return the files, by name."""
    folder = resources.files("rankloom.validate.engines").joinpath("data")
    found = (file for file in folder.iterdir() if file.name.endswith(".toml"))
    return sorted(found, key=lambda file: file.name)


@cache
def engines() -> tuple[Engine, ...]:
    """Return all engines, by name and then from the oldest version to the newest."""
    found = [parse(file.read_text("utf-8"), file.name) for file in files()]
    return tuple(sorted(found, key=lambda engine: (engine.name, _numbers(engine.version))))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))
