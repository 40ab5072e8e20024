"""Parameters that come with another number of rows: a vocabulary that was resized."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rankloom.apply.placed import Contribution, Located, Placed
from rankloom.base.pieces import parameter_shape
from rankloom.change.dtypes import FLOATS
from rankloom.finding import Finding
from rankloom.tensorfile.index import swapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.base.model import Base

_INPUTS = frozenset(
    ["embed_tokens", "embed_in", "wte", "word_embeddings", "tokens_embed", "shared"]
)
_HEADS = frozenset(
    ["lm_head", "embed_out", "output_projection", "vocab_projector", "predictions", "proj_out"]
)
_VOCABULARY = _INPUTS | _HEADS | {"final_logits_bias"}
"""Parts of the names of tensors that have a row for each token."""


def is_head(name: str) -> bool:
    """Tell whether a tensor is a language-model head by its name, not an input embedding."""
    return bool(_HEADS & set(name.split(".")))


def is_resized(item: Located) -> bool:
    """Tell whether a change puts a whole tensor with more or fewer rows in the place of another.

    The new rows are the adapter's alone, so the weights of all that put in values make 1.
    """
    [piece, *others] = item.pieces
    changes = [term.change for term in item.formula.terms]
    shapes = {change.shape for change in changes}
    old, new = parameter_shape(item.pieces), item.formula.shape
    if others or piece.region or piece.part or len(shapes) != 1 or new is None or new == old:
        return False
    return item.formula.share == 1 and new[1:] == old[1:] and piece.entry.dtype in FLOATS


def resized(item: Located) -> Placed:
    """Return the tensor that takes the place of the base's."""
    [piece] = item.pieces
    shape = item.formula.shape
    assert shape is not None  # noqa: S101 - is_resized says so
    stored = swapped(shape) if piece.transposed else shape
    entry = replace(piece.entry, shape=stored)
    one = Contribution(replace(piece, entry=entry), (), shape, item.formula.put_in_once)
    return Placed(entry.name, None, entry.dtype, stored, (one,), entry.path, is_new=True)


def check_vocabulary(base: Base, tensors: Mapping[str, Placed]) -> Iterator[Finding]:
    """Find tensors that keep the old number of tokens while others get a new one."""
    sizes = new_sizes(base, tensors)
    for name in sizes.keys() - {label for label in sizes if _is_vocabulary(label)}:
        message = f"{name} is {base.tensors[name].shape} in the base, but {sizes[name]} rows come"
        yield Finding("BASE002", message, where=name)
    known = {name: size for name, size in sizes.items() if _is_vocabulary(name)}
    if not known:
        return
    old = {base.tensors[name].shape[0] for name in known if name in base.tensors}
    behind = [
        name
        for name, entry in base.tensors.items()
        if _is_vocabulary(name) and old & set(entry.shape[:2]) and name not in known
    ]
    if behind or len(set(known.values())) != 1:
        what = f"the adapters bring {known}, but {behind or 'these'} would not fit"
        fix = "resize the base's embeddings first, or train with both embeddings saved"
        yield Finding("BASE002", what, where=min(known), fix=fix)


def new_sizes(base: Base, tensors: Mapping[str, Placed]) -> dict[str, int]:
    """Return the new number of rows of each tensor of the base that gets another one."""
    return {
        name: item.shape[0]
        for name, item in tensors.items()
        if name in base.tensors and item.shape != base.tensors[name].shape
    }


def _is_vocabulary(name: str) -> bool:
    return bool(_VOCABULARY & set(name.split(".")))


def vocabulary_edits(base: Base, tensors: Mapping[str, Placed]) -> dict[str, Any]:
    """Return what the config says of a vocabulary that was resized."""
    sizes = {size for name, size in new_sizes(base, tensors).items() if _is_vocabulary(name)}
    return {"vocab_size": sizes.pop()} if sizes else {}
