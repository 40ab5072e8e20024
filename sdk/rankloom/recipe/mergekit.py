"""mergekit's YAML as a recipe, where it says the same; the rest is refused by name.

mergekit merges whole models, of which ``base+adapter`` is one. Here the adapters' deltas are
combined and the base is left out, which is the same for all methods that subtract the base first,
and for ``linear``, whose weights add up to 1. The angles of ``slerp`` and its kin are between
deltas here; between whole models they are near 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.recipe.draft import Draft, Entry, at, mapping, text
from rankloom.recipe.weights import Filter, Gradient, read_weight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.recipe.source import Path, Source
    from rankloom.recipe.weights import Weight

KEYS = (
    "base_model",
    "models",
    "merge_method",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
)
_ELSEWHERE = {
    "slices": "models made of slices of others",
    "modules": "models of several modules",
    "chat_template": "changes of the chat template",
}
_SUBTRACT = ("exact", "linear", "slerp", "nuslerp", "multislerp", "karcher", "model_stock")
"""Methods that here take deltas only; a model without adapter would have none."""

_DIVIDED = frozenset({"ties", "dare_ties", "della", "breadcrumbs_ties"})
_NEUTRAL = frozenset({"int8_mask", "eps"})
"""How masks are kept there, and what guards a division there."""

_PLAIN = {
    "filter_wise": False,
    "nuslerp_flatten": True,
    "nuslerp_row_wise": False,
    "rescale": True,
}
"""Parameters that change what is computed, with the value that means what is computed here."""


def read_mergekit(source: Source) -> Draft:
    """Read mergekit's YAML.

    Raises:
        RefError: something is not understood, or means another thing than here; the message names
            the line.
    """
    for key, what in _ELSEWHERE.items():
        if key in source.value:
            message = f"{key}: {what} cannot be composed of adapters"
            raise source.error((key,), message, "use mergekit for this")
    top = mapping(source, source.value, (), KEYS)
    _check_tokenizer(source, top)
    where = ("merge_method",)
    method = text(source, top.get("merge_method"), where, "merge_method")
    parameters = _parameters(source, method, top.get("parameters") or {})
    base, entries = _entries(source, top)
    dtype = top.get("out_dtype") or top.get("dtype")
    if method == "slerp" and isinstance(parameters.get("t"), list | dict):
        entries = _by_place(source, entries, parameters.pop("t"))
        method = "nuslerp"
    return Draft(source, entries, method, where, parameters, base, dtype=dtype, is_foreign=True)


def _check_tokenizer(source: Source, top: Mapping[str, Any]) -> None:
    for key, plain in (("tokenizer_source", "base"), ("tokenizer", {"source": "base"})):
        if top.get(key, plain) != plain:
            message = f"{key}: a composition keeps the base's tokenizer"
            raise source.error((key,), message, "leave it out, or use mergekit")


def _parameters(source: Source, method: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters under the names and with the values that mean the same here."""
    kept = {name: value for name, value in found.items() if name not in _NEUTRAL}
    for name, plain in _PLAIN.items():
        if kept.pop(name, plain) is not plain:
            message = f"{name} can only be {str(plain).lower()} here"
            raise source.error(("parameters", name), message, "leave it out, or use mergekit")
    if "normalize" in kept and method in _DIVIDED:
        kept["divide_by"] = "weights" if kept.pop("normalize") else "none"
    if "normalize_weights" in kept:
        kept["normalize"] = kept.pop("normalize_weights")
    return kept


def _entries(source: Source, top: Mapping[str, Any]) -> tuple[str | None, tuple[Entry, ...]]:
    models = top.get("models")
    if not isinstance(models, list) or not models:
        raise source.error(("models",), "there is no list of models", "write - model: BASE+ADAPTER")
    named = top.get("base_model")
    base, first = _split(source, named, ("base_model",)) if named is not None else (None, None)
    entries: list[Entry] = []
    for number, item in enumerate(models):
        where: Path = ("models", number)
        known = mapping(source, item, where, ("model", "parameters"))
        model, adapter = _split(source, known.get("model"), (*where, "model"))
        base = base or model
        _check_model(source, top, (*where, "model"), base, model, adapter)
        if adapter is not None:
            entry = Entry(adapter, where, known.get("parameters") or {})
            # mergekit's slerp begins at its base_model, wherever it stands in the list.
            entries.insert(0 if adapter == first else len(entries), entry)
    return base, tuple(entries)


def _split(source: Source, value: object, where: Path) -> tuple[str, str | None]:
    model, plus, adapter = text(source, value, where, str(where[-1])).partition("+")
    if "+" in adapter or (plus and not (model and adapter)):
        raise source.error(where, f"{value!r} is not BASE+ADAPTER", "name one adapter for each")
    return model, adapter or None


def _check_model(
    source: Source,
    top: Mapping[str, Any],
    where: Path,
    base: str,
    model: str,
    adapter: str | None,
) -> None:
    if model != base:
        message = f"{model} is another base than {base}: adapters of one base are composed"
        hint = f"write {base}+{adapter or 'ADAPTER'}, or use mergekit for whole models"
        raise source.error(where, message, hint)
    if adapter is None and top.get("merge_method") in _SUBTRACT:
        message = f"{model} takes part without an adapter, so it would have no delta"
        hint = "leave it out; for less of an adapter use task_arithmetic with smaller weights"
        raise source.error(where, message, hint)


def _by_place(source: Source, entries: tuple[Entry, ...], t: object) -> tuple[Entry, ...]:
    """Return two entries with weights 1 - t and t, which nuslerp reads as slerp's t.

    So t may be a gradient or filters, as mergekit has it.
    """
    where = ("parameters", "t")
    if len(entries) != 2 or any("weight" in entry.parameters for entry in entries):
        message = "slerp with t by layer takes two adapters without weights"
        raise source.error(where, message, "use nuslerp with a weight for each adapter")
    with at(source, where):
        weight = read_weight(t)
    one, two = entries
    return (
        Entry(one.ref, one.where, {"weight": _rest(weight)}),
        Entry(two.ref, two.where, {"weight": weight}),
    )


def _rest(weight: Weight) -> Weight:
    """Return 1 - weight."""
    if isinstance(weight, Gradient):
        return Gradient(tuple(1 - value for value in weight.values))
    if isinstance(weight, tuple):
        return tuple(Filter(case.text, _less(case.value)) for case in weight)
    assert isinstance(weight, float)  # noqa: S101 - nobody writes numbers by target there
    return 1 - weight


def _less(value: float | Gradient) -> float | Gradient:
    if isinstance(value, Gradient):
        return Gradient(tuple(1 - number for number in value.values))
    return 1 - value
