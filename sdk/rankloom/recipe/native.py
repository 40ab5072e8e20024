"""The recipe's own format, and PEFT's names for methods in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.recipe.draft import Draft, Entry, mapping, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.recipe.source import Source

KEYS = (
    "version",
    "base_model",
    "adapters",
    "merge_method",
    "combination_type",
    "parameters",
    "output",
    "allow_no_effect",
)

OUTPUT = ("rank", "dtype", "engines")

_PEFTS_SIGNS = {"sign_election": "unweighted", "divide_by": "count"}
PEFT: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "cat": ("exact", {}),
    "svd": ("exact", {}),
    "ties_svd": ("ties", _PEFTS_SIGNS),
    "dare_linear_svd": ("dare_linear", {}),
    "dare_ties_svd": ("dare_ties", _PEFTS_SIGNS),
    "magnitude_prune_svd": ("magnitude_prune", {}),
}
"""``combination_type`` of PEFT that combines deltas → method, and parameters where PEFT differs."""

APART = {
    "linear": "exact",
    "ties": "ties",
    "dare_linear": "dare_linear",
    "dare_ties": "dare_ties",
    "magnitude_prune": "magnitude_prune",
}
"""``combination_type`` of PEFT that combines all A and all B apart → the method for deltas."""


def read_native(source: Source) -> Draft:
    """Read a recipe in its own format.

    Raises:
        RefError: something is not understood; the message names the line.
    """
    top = mapping(source, source.value, (), KEYS)
    if top.get("version", 1) != 1:
        message = f"version {top['version']!r} is not known"
        raise source.error(("version",), message, "this format is version 1")
    output = mapping(source, top.get("output") or {}, ("output",), OUTPUT)
    base = top.get("base_model")
    method, where, defaults = _method(source, top, output)
    return Draft(
        source,
        _entries(source, top.get("adapters")),
        method,
        where,
        {**defaults, **_parameters(source, top.get("parameters"), ("parameters",))},
        None if base is None else text(source, base, ("base_model",), "base_model"),
        _rank(output.get("rank")),
        ("output", "rank"),
        output.get("dtype"),
        output.get("engines"),
        top.get("allow_no_effect", False),
    )


def _entries(source: Source, found: object) -> tuple[Entry, ...]:
    if not isinstance(found, list) or not found:
        message = "a recipe needs a list of adapters"
        raise source.error(("adapters",), message, "write adapters:, then - adapter: NAME")
    return tuple(_entry(source, number, item) for number, item in enumerate(found))


def _entry(source: Source, number: int, item: object) -> Entry:
    where = ("adapters", number)
    known = mapping(source, item, where, ("adapter", "parameters"))
    ref = text(source, known.get("adapter"), (*where, "adapter"), "adapter")
    return Entry(ref, where, _parameters(source, known.get("parameters"), (*where, "parameters")))


def _parameters(source: Source, found: object, where: tuple[str | int, ...]) -> dict[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise source.error(where, "parameters are keys with values", "write {weight: 0.5}")
    return found


def _rank(found: object) -> object:
    """Return a rank as everywhere else; a mapping spells out what ``energy=…`` says."""
    if isinstance(found, dict) and found.keys() in ({"energy"}, {"energy", "max"}):
        most = f",max={found['max']}" if "max" in found else ""
        return f"energy={found['energy']}{most}"
    return found


def _method(
    source: Source, top: Mapping[str, Any], output: Mapping[str, Any]
) -> tuple[str, tuple[str], Mapping[str, Any]]:
    if "combination_type" not in top:
        name = text(source, top.get("merge_method", "exact"), ("merge_method",), "merge_method")
        return name, ("merge_method",), {}
    where = ("combination_type",)
    if "merge_method" in top:
        message = "merge_method and combination_type both name a method"
        raise source.error(where, message, "keep one of them")
    name = text(source, top["combination_type"], where, "combination_type")
    if name in APART:
        message = f"PEFT's {name} combines all A and all B apart, which adds products of factors"
        message += " of different adapters that nobody trained"
        other = ", or peft_linear for what PEFT makes" if name == "linear" else ""
        hint = f"write merge_method: {APART[name]}, on true deltas{other}"
        raise source.error(where, message, hint)
    if name not in PEFT:
        message = f"PEFT has no combination_type {name!r}"
        raise source.error(where, message, f"known: {', '.join(PEFT)}")
    if name != "cat" and output.get("rank") is None:
        message = f"PEFT's {name} has a rank, and the recipe names none"
        raise source.error(where, message, "add output: {rank: 16}")
    method, defaults = PEFT[name]
    return method, where, defaults
