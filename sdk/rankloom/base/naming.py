"""Which renamings a base's class has in transformers, and what its config says about tying.

transformers itself is not needed: ``data/transformers.json`` holds what it publishes
(``scripts/transformers_names.py`` writes it).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rankloom.base.renaming import Rule, Rules, rule_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DATA = Path(__file__).parent / "data/transformers.json"
_LEGACY = "legacy"


@dataclass(frozen=True)
class Naming:
    """How one class of transformers names its parameters.

    Attributes:
        rules: from the names on disk to those of the class.
        prefix: name of the backbone's module, which some checkpoints and some classes leave out.
    """

    rules: Rules
    prefix: str = ""


@cache
def data() -> Mapping[str, Any]:
    """Return what is known of transformers."""
    return cast("dict[str, Any]", json.loads(_DATA.read_text("utf-8")))


def namings(config: Mapping[str, Any]) -> Iterator[Naming]:
    """Yield the namings that a base of this config can have: first that of the class it names.

    Then come the other classes of its model type, since an adapter may have been trained on one
    of them. A config that names nothing known is a model whose names are its own.
    """
    seen: set[str] = set()
    for name in _classes(config):
        known = data()["classes"][name]
        scopes = list(_scopes(known, config))
        identity = json.dumps([scopes, known.get("keep"), known["prefix"]])
        if identity not in seen:
            seen.add(identity)
            yield _naming(known, scopes)
    if not seen:
        kinds = (kind_of(config), _LEGACY if kind_of(config) else None)
        rules = (rule for kind in kinds for rule in _rules(kind, None, ""))
        yield Naming(Rules(tuple(rules)))


def _naming(known: Mapping[str, Any], scopes: list[tuple[str | None, str]]) -> Naming:
    prefix = known["prefix"]
    rules = [rule for scope, kind in scopes for rule in _rules(kind, scope, prefix)]
    rules += _rules(_LEGACY, None, prefix)
    return Naming(Rules(tuple(rules), frozenset(known.get("keep", ()))), prefix)


def class_of(config: Mapping[str, Any]) -> str | None:
    """Return the class that the config names, or another of its model type; ``None``: unknown."""
    return next(_classes(config), None)


def _classes(config: Mapping[str, Any]) -> Iterator[str]:
    classes = data()["classes"]
    named = config.get("architectures")
    texts = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    yield from (name for name in texts if name in classes)
    yield from _by_type().get(kind_of(config) or "", ())


def kind_of(config: Mapping[str, Any]) -> str | None:
    """Return the type of model that a config names; ``None``: none, or what is no text."""
    kind = config.get("model_type")
    return kind if isinstance(kind, str) else None


def is_known(kind: str) -> bool:
    """Tell whether transformers has a model of this type."""
    return kind in _by_type()


def is_converted(config: Mapping[str, Any]) -> bool:
    """Tell whether transformers converts checkpoints of this type of model, not of a class only."""
    return kind_of(config) in data()["conversions"]


@cache
def _by_type() -> Mapping[str, tuple[str, ...]]:
    """Return the classes of each model type."""
    found: dict[str, list[str]] = {}
    for name, known in data()["classes"].items():
        found.setdefault(known["type"], []).append(name)
    return {kind: tuple(names) for kind, names in found.items()}


def _scopes(
    known: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[tuple[str | None, str]]:
    """Yield (scope, name of rules), those of models within by what the config says they are."""
    other = [
        (part.removeprefix(known["prefix"]).removeprefix("."), name)
        for part, _, name in _other_parts(known, config)
    ]
    for scope, kind in known.get("scopes", ()):
        if not any(_is_within(scope, part) for part, _ in other):
            yield scope, kind
    for part, name in other:
        for scope, kind in data()["classes"].get(name, {}).get("scopes", ()):
            yield (f"{part}.{scope}" if scope else part), kind


def tied_names(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Yield what a base's class ties if the config wants it.

    Returns:
        Triples: the module in which the names are, the place of the config that decides, and the
        names or patterns of parameters or modules, with those that they repeat.
    """
    if (name := class_of(config)) is None:
        return
    known = data()["classes"][name]
    other = list(_other_parts(known, config))
    for module, place, pairs in known.get("tied", ()):
        if not any(_is_within(module, part) for part, _, _ in other):
            yield module, place or "", pairs
    for part, where, kind in other:
        for module, place, pairs in data()["classes"].get(kind, {}).get("tied", ()):
            yield _joined(part, module), _joined(where, place or ""), pairs


def _joined(*parts: str) -> str:
    return ".".join(filter(None, parts))


def _other_parts(
    known: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Yield module, place of the config and class of models within that are not the usual ones."""
    for module, place, kind, usual in known.get("parts", ()):
        found = kind_of(at(config, place)) if place else None
        if found and found != kind:
            # What has a tied head in the usual model has one in this model as well.
            table = "causal" if data()["classes"].get(usual, {}).get("tied") else "automatic"
            if name := data()[table].get(found):
                yield module, place, name


def _is_within(scope: str | None, part: str) -> bool:
    return scope is not None and (scope == part or scope.startswith(f"{part}."))


def at(config: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    """Return the config within a config, by its dotted path; empty if there is none."""
    for name in place.split(".") if place else ():
        inner = config.get(name)
        config = inner if isinstance(inner, dict) else {}
    return config


def _rules(kind: str | None, scope: str | None, prefix: str) -> list[Rule]:
    found = data()["conversions"].get(kind, [])
    if isinstance(found, str):
        found = data()["conversions"][found]
    return [rule_of(value, scope, prefix) for value in found]
