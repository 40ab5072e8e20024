"""Which modules keep a weight as (in, out), so that a delta (out, in) is added transposed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.errors import BaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.base.model import Base
    from rankloom.base.view import View

CONV1D_MODULES = frozenset(["c_attn", "c_proj", "c_fc", "q_attn"])
"""Names of the modules that are transformers' ``Conv1D`` in the models below."""

CONV1D_MODELS = frozenset(["gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"])
"""Values of ``model_type`` whose modules of those names store (in, out)."""

TRANSPOSED_EXPERTS = frozenset(["gpt_oss", "openai_privacy_filter", "aria", "aria_text"])
"""Values of ``model_type`` whose experts say that they keep (experts, in, out)."""


def is_transposed(base: Base, module: str, matrix: View) -> bool:
    """Tell whether a module keeps its weight as (in, out).

    Raises:
        BaseError: nothing tells.
    """
    if module.rpartition(".")[2] not in CONV1D_MODULES:
        return False
    types = set(model_types(base.config))
    if types & CONV1D_MODELS:
        return True
    votes = set(_votes(base))
    if len(votes) == 1:
        return votes.pop()
    if types:  # every Conv1D model of transformers is in the table
        return False
    name = matrix.blocks[0].entry.name
    message = f"{name}: nothing tells whether it is stored as (out, in) or as (in, out)"
    raise BaseError(message, hint="put the base's config.json, with its model_type, beside it")


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


def _votes(base: Base) -> Iterator[bool]:
    """Yield, for each module of such a name, whether its bias says that it is transposed."""
    for name, entry in base.tensors.items():
        module, _, parameter = name.rpartition(".")
        bias = base.tensors.get(f"{module}.bias")
        if parameter != "weight" or module.rpartition(".")[2] not in CONV1D_MODULES or not bias:
            continue
        rows, columns = entry.shape if len(entry.shape) == 2 else (0, 0)
        if rows != columns and bias.shape in {(rows,), (columns,)}:
            yield bias.shape == (columns,)
