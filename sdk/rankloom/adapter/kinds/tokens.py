"""Trained tokens: some rows of an embedding are replaced (``trainable_token_indices``).

Key ``<module>.token_adapter.trainable_tokens_delta`` (n, width): the rows themselves, in spite of
its name. Which rows they are stands in the config only: a list for the input embedding, or lists
by the embedding's name. Where the base ties its head to the input embedding, PEFT changes both,
unless they have rows of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rankloom.adapter.change import Rows, Target
from rankloom.adapter.config import FILE
from rankloom.adapter.kinds import factors
from rankloom.adapter.patterns import ends_with
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Tensors
    from rankloom.adapter.kinds.reading import Reading

_DELTA = ".token_adapter.trainable_tokens_delta"

Indices = Mapping[str | None, tuple[int, ...]]
"""Rows by the embedding's name; ``None``: of whichever it is."""


def read(config: AdapterConfig, tensors: Tensors) -> Reading:
    """Return a target for every embedding of which rows were trained."""
    value = config.options.get("trainable_token_indices")
    if value is None:
        return factors.reading((), ())
    indices = _parse(value)
    if indices is None:
        message = f"{FILE}: trainable_token_indices is {value!r:.80}, no lists of different rows"
        finding = Finding("CFG001", message, where="trainable_token_indices", fix="save it again")
        return factors.reading([finding], ())
    modules = factors.modules_of(tensors, (_DELTA,))
    lone = len(modules) == 1
    results = [item for module in modules for item in _rows(tensors, module, indices, lone=lone)]
    if not modules:
        message = f"{FILE}: trainable_token_indices names tokens, but no tensor holds them"
        results.append(Finding("CFG007", message, where="trainable_token_indices"))
    return factors.reading(results, (module + _DELTA for module in modules))


def _parse(value: Any) -> Indices | None:  # noqa: ANN401 - a JSON value
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


def _rows(
    tensors: Tensors, module: str, indices: Indices, *, lone: bool
) -> Iterator[Target | Finding]:
    """Yield the target of one embedding, or what is wrong with it."""
    entry = tensors[module + _DELTA]
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
        yield Target(module, "tokens", Rows(entry, found[0], spreads=lone))
