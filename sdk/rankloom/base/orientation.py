"""Which modules keep a weight as (in, out), so that a delta (out, in) is added transposed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.base import naming
from rankloom.errors import BaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.adapter.change import Target
    from rankloom.base.model import Base
    from rankloom.base.view import View
    from rankloom.tensorfile.header import TensorEntry

_WEIGHT = ".weight"

CONV1D_MODULES = frozenset(["c_attn", "c_proj", "c_fc", "q_attn"])
"""Names of the modules that are transformers' ``Conv1D`` in the models below."""

CONV1D_MODELS = frozenset(["gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"])
"""Values of ``model_type`` whose modules of those names store (in, out)."""

TRANSPOSED_EXPERTS = frozenset(["gpt_oss", "openai_privacy_filter", "aria", "aria_text"])
"""Values of ``model_type`` whose experts say that they keep (experts, in, out)."""


def is_transposed(base: Base, target: Target, matrix: View) -> bool:
    """Tell whether a target's module keeps its weight as (in, out).

    Models of transformers are known. In others the headers tell: a ``Conv1D`` has always a bias,
    as long as its output. A square weight says nothing itself; it is (out, in), as layers of torch
    are, unless something speaks of ``Conv1D`` in this base.

    Args:
        base: the base.
        target: what changes.
        matrix: where it lies.

    Raises:
        BaseError: the weight is square, and the base or the adapter knows ``Conv1D``.
    """
    is_named = _is_named(target.module)
    if (known := _by_model(base, is_named=is_named)) is not None:
        return known
    entry = matrix.blocks[0].entry
    if len(matrix.blocks) > 1 or _bias(base, entry.name) is None:
        return False
    turned = _says(base, entry)
    if turned is not None:
        return turned
    return _is_square_transposed(base, target, entry.name)


def is_assumed(base: Base, name: str) -> bool:
    """Tell whether nothing shows how a matrix is stored, so that it is taken as (out, in).

    Args:
        base: the base.
        name: the matrix, as stored.
    """
    entry = base.tensors[name]
    module = name.removesuffix(_WEIGHT)
    if _by_model(base, is_named=_is_named(module)) is not None or _bias(base, name) is None:
        return False
    return len(entry.shape) == 2 and _says(base, entry) is None and not _votes(base, module)


def _by_model(base: Base, *, is_named: bool) -> bool | None:
    """Tell what transformers' models say; ``None``: it is none of them."""
    types = set(model_types(base.config))
    if types & CONV1D_MODELS:
        return is_named
    return False if types and all(map(naming.is_known, types)) else None


def _votes(base: Base, module: str) -> set[bool]:
    """Return what the shapes of modules of the same kind say, where names tell the kind."""
    said = base.transposed.items() if _is_named(module) else ()
    return {turned for other, turned in said if _is_named(other)}


def _is_square_transposed(base: Base, target: Target, name: str) -> bool:
    if _is_named(target.module):
        votes = _votes(base, target.module)
        if len(votes) == 1:
            return votes.pop()
    elif not target.fan_in_fan_out and True not in base.transposed.values():
        return False
    message = f"{name}: nothing tells whether it is stored as (out, in) or as (in, out)"
    hint = "put the config.json of its transformers model beside it, or merge with PEFT"
    raise BaseError(message, hint=hint)


def transposed_modules(base: Base) -> dict[str, bool]:
    """Return, for each module whose shapes tell, whether it keeps its weight as (in, out)."""
    said = {
        name.removesuffix(_WEIGHT): _says(base, entry)
        for name, entry in base.tensors.items()
        if name.endswith(_WEIGHT)
    }
    return {module: turned for module, turned in said.items() if turned is not None}


def _says(base: Base, entry: TensorEntry) -> bool | None:
    """Tell what a bias says of its weight; ``None``: nothing."""
    bias = _bias(base, entry.name)
    rows, columns = entry.shape if len(entry.shape) == 2 else (0, 0)
    if rows == columns or bias is None or bias.shape not in {(rows,), (columns,)}:
        return None
    return bias.shape == (columns,)


def _bias(base: Base, name: str) -> TensorEntry | None:
    if not name.endswith(_WEIGHT):
        return None
    return base.tensors.get(f"{name.removesuffix(_WEIGHT)}.bias")


def _is_named(module: str) -> bool:
    return module.rpartition(".")[2] in CONV1D_MODULES


def has_transposed_experts(config: object) -> bool:
    """Tell whether a model's experts are kept as (experts, in, out)."""
    return bool(set(model_types(config)) & TRANSPOSED_EXPERTS)


def model_types(config: object) -> Iterator[str]:
    """Yield the model types of a config and of the configs within (encoder, decoder, …)."""
    if isinstance(config, dict):
        if isinstance(kind := config.get("model_type"), str):
            yield kind
        for value in config.values():
            yield from model_types(value)
