"""Trained tokens: some rows of an embedding are replaced (``trainable_token_indices``).

Key ``<module>.token_adapter.trainable_tokens_delta`` (n, width): the rows themselves, in spite of
its name; ``<module>.token_adapter.base_layer.weight`` beside it where the vocabulary grew: all
other rows. Which rows they are stands in the config only: a list for the input embedding, or lists
by the embedding's name. Where the base ties its head to the input embedding, PEFT changes both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rankloom.adapter.change import Replacement, Rows, Target
from rankloom.adapter.config import FILE
from rankloom.adapter.kinds import factors
from rankloom.adapter.patterns import ends_with
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Tensors
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.tensorfile.header import TensorEntry

_DELTA = ".token_adapter.trainable_tokens_delta"
_SAVED = ".token_adapter.base_layer.weight"

Indices = Mapping[str | None, tuple[int, ...]]
"""Rows by the embedding's name; ``None``: of whichever it is."""


def read(config: AdapterConfig, tensors: Tensors) -> Reading:
    """Return a target for every embedding of which rows were trained."""
    value = config.options.get("trainable_token_indices")
    if value is None:
        return factors.reading((), ())
    indices = parse(value)
    if indices is None:
        message = f"{FILE}: trainable_token_indices is {value!r:.80}, no lists of different rows"
        finding = Finding("CFG001", message, where="trainable_token_indices", fix="save it again")
        return factors.reading([finding], ())
    modules = factors.modules_of(tensors, (_DELTA,))
    results = [item for module in modules for item in rows(tensors, module, _DELTA, indices)]
    if not modules:
        message = f"{FILE}: trainable_token_indices names tokens, but no tensor holds them"
        results.append(Finding("CFG007", message, where="trainable_token_indices"))
    taken = {module + end for module in modules for end in (_DELTA, _SAVED)}
    return factors.reading(results, taken & tensors.keys())


def parse(value: Any) -> Indices | None:  # noqa: ANN401 - a JSON value
    """Return the rows that the config names, or ``None`` if it does not name any."""
    named = value if isinstance(value, dict) else {None: value}
    lists = named.values()
    if not named or not all(isinstance(item, list) and item for item in lists):
        return None
    if any(type(row) is not int or row < 0 for item in lists for row in item):
        return None
    if any(len(set(item)) != len(item) for item in lists):
        return None
    return {name: tuple(item) for name, item in named.items()}


def rows(tensors: Tensors, module: str, end: str, indices: Indices) -> Iterator[Target | Finding]:
    """Yield the target of one embedding, or what is wrong with it."""
    entry = tensors[module + end]
    found = [item for name, item in indices.items() if name is None or ends_with(module, name)]
    if wrong := list(factors.check_dtype(entry)):
        yield from wrong
    elif len(set(found)) != 1:
        message = f"{FILE}: trainable_token_indices names {len(found)} lists of rows of {module}"
        yield Finding("CFG006", message, where=module, fix="name each embedding once")
    elif len(entry.shape) != 2 or entry.shape[0] != len(found[0]):
        message = f"{entry.name} is {list(entry.shape)}, the config names {len(found[0])} rows"
        yield Finding("TEN003", message, where=module, fix="save the adapter again")
    else:
        change = Rows(entry, found[0])
        yield from _target(module, change, tensors.get(module + _SAVED))


def _target(module: str, rows: Rows, saved: TensorEntry | None) -> Iterator[Target | Finding]:
    if saved is None:
        yield Target(module, "tokens", rows)
    elif wrong := list(factors.check_dtype(saved)):
        yield from wrong
    else:
        yield Target(module, "tokens", Replacement(saved, rows))
