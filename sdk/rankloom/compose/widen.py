"""Brings all factors of a folder to one rank, the only form that every engine reads alike.

PEFT takes ranks and alphas that differ by module from ``rank_pattern`` and ``alpha_pattern``;
SGLang, TGI, LoRAX, llama.cpp and TensorRT-LLM read neither or only one of them, and serve another
scale without a word. Rows of zeros in A and columns of zeros in B change no product.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch.nn.functional import pad

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from rankloom.compose.forms import Form, Tensors

_FIRST = (".lora_A.weight", ".lora_embedding_A")
_SECOND = (".lora_B.weight", ".lora_embedding_B")


def widen(forms: Sequence[Form]) -> list[Form]:
    """Return the same changes with factors that all have the largest rank among them."""
    rank = max((found for form in forms for found in form.ranks.values()), default=0)
    return [_widened(form, rank) for form in forms]


def _widened(form: Form, rank: int) -> Form:
    own = max(form.ranks.values(), default=rank)  # a form has one rank, under one name or more
    if own == rank:
        return form

    def load() -> Tensors:
        return {key: _filled(key, value, own, rank) for key, value in form.load().items()}

    shapes = {
        key: (code, _shape(key, shape, own, rank)) for key, (code, shape) in form.shapes.items()
    }
    return replace(form, shapes=shapes, load=load, ranks=dict.fromkeys(form.ranks, rank))


def _axis(key: str) -> int | None:
    """Return the axis of a tensor that counts ranks."""
    return 0 if key.endswith(_FIRST) else 1 if key.endswith(_SECOND) else None


def _shape(key: str, shape: tuple[int, ...], own: int, rank: int) -> tuple[int, ...]:
    axis = _axis(key)
    if axis is None:
        return shape
    return (*shape[:axis], shape[axis] // own * rank, *shape[axis + 1 :])


def _filled(key: str, value: torch.Tensor, own: int, rank: int) -> torch.Tensor:
    """Fill up with zeros, in each expert's rows of A, and after the columns of all experts of B."""
    axis = _axis(key)
    if axis is None:
        return value
    shape = _shape(key, tuple(value.shape), own, rank)
    groups = (value.shape[0] // own, own, -1) if axis == 0 else (value.shape[0], own, -1)
    return pad(value.reshape(groups), (0, 0, 0, rank - own)).reshape(shape)
