"""Factors of a delta as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from rankloom.errors import AdapterError, IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Factors(NamedTuple):
    """One delta ``b @ a``.

    Attributes:
        b: (out, r), float32 or float64, with the scale folded in.
        a: (r, in), likewise.
    """

    b: torch.Tensor
    a: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the delta."""
        return self.b.shape[0], self.a.shape[1]

    @property
    def rank(self) -> int:
        """Columns of b, rows of a."""
        return self.b.shape[1]


def check(parts: Sequence[Factors]) -> tuple[int, int]:
    """Return the shape that all deltas have.

    Raises:
        IncompatibleError: there are none, the factors of one do not meet, or the shapes differ.
    """
    if not parts:
        message = "there are no factors to combine"
        raise IncompatibleError(message, hint="give at least one adapter that changes the target")
    for part in parts:
        if part.b.ndim != 2 or part.a.ndim != 2 or part.b.shape[1] != part.a.shape[0]:
            message = f"TEN003 factors {tuple(part.b.shape)} and {tuple(part.a.shape)} do not meet"
            raise IncompatibleError(message, hint="B is (out, r) and A is (r, in)")
    shapes = sorted({part.shape for part in parts})
    if len(shapes) > 1:
        message = f"BASE002 deltas of one target have the shapes {shapes}"
        raise IncompatibleError(message, hint="adapters of one base agree on every shape")
    return shapes[0]


def join(parts: Sequence[Factors], coefficients: Sequence[float] | None = None) -> Factors:
    """Return Σ cₜ·Δₜ as one pair of factors, exactly.

    Semantics: ``b = [c₁·b₁ … cₙ·bₙ]`` (out, Σr), ``a = [a₁; …; aₙ]`` (Σr, in), in float64.
    Values are not looked at: who computes with them calls :func:`check_finite` on what is small.

    Args:
        parts: at least one, of one shape; ranks may differ.
        coefficients: one for each part; default: all 1.

    Raises:
        IncompatibleError: see :func:`check`.
    """
    out, into = check(parts)
    numbers = [1.0] * len(parts) if coefficients is None else coefficients
    rank, device = sum(part.rank for part in parts), parts[0].b.device
    # Columns lie one behind the other in memory, as LAPACK takes them.
    b = torch.empty(rank, out, dtype=torch.float64, device=device).T
    a = torch.empty(rank, into, dtype=torch.float64, device=device)
    start = 0
    for part, number in zip(parts, numbers, strict=True):
        span = slice(start, start + part.rank)
        b[:, span] = part.b.detach()
        b[:, span] *= number
        a[span] = part.a.detach()
        start += part.rank
    return Factors(b, a)


def check_finite(values: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Refuse numbers computed from factors of a delta if one of them is none.

    Raises:
        AdapterError: a value is NaN or infinite.
    """
    if not torch.isfinite(values).all():
        message = f"NUM001 factors of a delta {shape} hold NaN, infinity, or overflow"
        raise AdapterError(message, hint="the training run diverged; use an earlier checkpoint")
