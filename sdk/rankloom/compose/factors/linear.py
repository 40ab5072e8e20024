"""Sums with the caller's own weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.compose.factors.directions import as_tensor, shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


def exact(gram: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Return c = w: the sum as it is meant, negative weights too.

    Args:
        gram: (N, N), only its size is used.
        weights: one for each delta.

    Returns:
        (N,), float64.
    """
    return as_tensor(weights, gram)


def linear(gram: torch.Tensor, weights: Sequence[float], *, normalize: bool = True) -> torch.Tensor:
    """Return c = w / Σw, as ``linear`` of mergekit: the weighted average of whole models.

    Args:
        gram: (N, N), only its size is used.
        weights: one for each delta.
        normalize: divide by the sum; without, this is :func:`exact`.

    Returns:
        (N,), float64.

    Raises:
        RefError: the weights add up to 0 and are to be normalised.
    """
    numbers = as_tensor(weights, gram)
    return shares(numbers) if normalize else numbers


def task_arithmetic(
    gram: torch.Tensor,
    weights: Sequence[float],
    *,
    lambda_: float = 1.0,
    normalize: bool = False,
) -> torch.Tensor:
    """Return c = λ·w: *Editing Models with Task Arithmetic*, arXiv 2212.04089.

    A negative weight takes a task away ("forgetting via negation" there).

    Args:
        gram: (N, N), only its size is used.
        weights: one for each delta.
        lambda_: multiplies them all.
        normalize: divide by the sum of the weights first, which mergekit can do.

    Returns:
        (N,), float64.

    Raises:
        RefError: the weights add up to 0 and are to be normalised.
    """
    return lambda_ * linear(gram, weights, normalize=normalize)
