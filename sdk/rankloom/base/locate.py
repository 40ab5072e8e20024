"""Finds the base tensor that an adapter's target means."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from rankloom.base.model import Base, Piece
from rankloom.errors import BaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.adapter.change import Target
    from rankloom.tensorfile.header import TensorEntry

CONV1D_MODULES = frozenset(["c_attn", "c_proj", "c_fc", "q_attn"])
"""Names of the modules that are transformers' ``Conv1D`` in the models below."""

CONV1D_MODELS = frozenset(["gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"])
"""Values of ``model_type`` whose modules of those names store (in, out)."""


def locate(base: Base, target: Target) -> tuple[Piece, ...]:
    """Return where a target lies in the base: nothing if nothing there can be meant.

    Model classes put a prefix before their backbone (``bert.``, ``model.``) that is in the
    checkpoint or not, depending on the class that saved it; transformers adds or drops it while
    loading. The same is done here when the exact name does not exist, and only if one tensor can
    be meant.

    Raises:
        BaseError: nothing tells whether the tensor is stored as (out, in) or as (in, out).
    """
    name = resolve(base, target.name)
    if name is None:
        return ()
    entry = base.tensors[name]
    return (Piece(entry, _is_transposed(base, target.module, entry)),)


def resolve(base: Base, name: str) -> str | None:
    """Return the name on disk of a parameter, or ``None``; see :func:`locate`."""
    if name in base.tensors:
        return name
    first, _, rest = name.partition(".")
    heads = {key.split(".", 1)[0] for key in base.tensors}
    if first in heads:
        return None  # the checkpoint has this part of the model, and the name is not in it
    if rest in base.tensors:
        return rest
    found = [key for head in heads if (key := f"{head}.{name}") in base.tensors]
    return found[0] if len(found) == 1 else None


def _is_transposed(base: Base, module: str, entry: TensorEntry) -> bool:
    if module.rpartition(".")[2] not in CONV1D_MODULES or len(entry.shape) != 2:
        return False
    types = set(_model_types(base.config))
    if types & CONV1D_MODELS:
        return True
    votes = set(_votes(base))
    if len(votes) == 1:
        return votes.pop()
    if types:  # every Conv1D model of transformers is in the table
        return False
    message = f"{entry.name}: nothing tells whether it is stored as (out, in) or as (in, out)"
    raise BaseError(message, hint="put the base's config.json, with its model_type, beside it")


def _model_types(config: object) -> Iterator[str]:
    """Yield the model types of a config and of the configs within (encoder, decoder, …)."""
    if isinstance(config, dict):
        if isinstance(kind := config.get("model_type"), str):
            yield kind
        for value in config.values():
            yield from _model_types(value)


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


def nearest(base: Base, name: str, count: int = 3) -> list[str]:
    """Return names of the base that a reader may have meant by ``name``, best first."""
    ending = name.split(".")[-2:]
    same = [key for key in base.tensors if key.split(".")[-2:] == ending]
    # difflib compares all pairs of characters, so it gets a sample of a large base.
    pool = same or list(base.tensors)
    return difflib.get_close_matches(name, pool[:400], n=count, cutoff=0.4)
