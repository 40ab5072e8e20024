"""Deltas that a kind computes as a matrix, in the shape of their parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.change.kinds.shapes import require

if TYPE_CHECKING:
    import torch


def as_weight(
    delta: torch.Tensor, weight: torch.Tensor, kind: str, *, rows: int | None = None
) -> torch.Tensor:
    """Return a delta in the shape of its parameter.

    Args:
        delta: as many values as the parameter, in its order.
        weight: the parameter.
        kind: for the message.
        rows: what the parameter's first axis must be; ``None``: the delta's first axis.

    Raises:
        IncompatibleError: the parameter has another first axis or number of values.
    """
    first = len(delta) if rows is None else rows
    fits = len(weight) == first and weight.numel() == delta.numel()
    what = f"{kind} is made for {first} rows and {delta.numel()} values"
    require(fits, f"{what}, but the base has {tuple(weight.shape)}")
    return delta.reshape(weight.shape)
