"""Interpolation along the arc between two deltas, and the same of more than two."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from rankloom.compose.factors.directions import (
    as_tensor,
    directions,
    shares,
    unit_length,
    weighted,
)
from rankloom.errors import IncompatibleError, RefError

if TYPE_CHECKING:
    from collections.abc import Sequence

OPPOSED = 1e-6
"""Angles this close to π (and lengths of means this close to 0) leave the direction to rounding."""


def slerp(gram: torch.Tensor, weights: Sequence[float], *, t: float) -> torch.Tensor:
    """Return c of the point at ``t`` on the arc from w₁·Δ₁ to w₂·Δ₂.

    Semantics: ``c = w ∘ (sin((1−t)·θ), sin(t·θ)) / sin θ`` with θ the angle between them
    (Shoemake 1985, *Animating rotation with quaternion curves*), as ``slerp`` of mergekit, on
    deltas: of whole models θ is near 0, and the arc is a line. mergekit takes the line from a
    cosine of 0.9995 on; here the formula is followed to θ = 0, whose limit the line is. To a delta
    of 0, which has no direction, the way is straight.

    Args:
        gram: (2, 2).
        weights: what the two deltas are multiplied by beforehand.
        t: 0 gives the first, 1 the second.

    Returns:
        (2,), float64.

    Raises:
        RefError: there are not two deltas, or ``t`` is no finite number.
        IncompatibleError: the two point in opposite directions, so that every arc is as short.
    """
    numbers = as_tensor(weights, gram)
    return numbers * _arc(weighted(gram, numbers), t, "slerp")


def nuslerp(gram: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Return c of the point that two weights name on the arc: t = w₂ / (w₁ + w₂).

    This is ``nuslerp`` of mergekit on whole targets (its default, ``nuslerp_flatten``); its
    row-wise form is no function of the Gram matrix.

    Args:
        gram: (2, 2).
        weights: their ratio is the place on the arc.

    Returns:
        (2,), float64.

    Raises:
        RefError: there are not two deltas, or the weights add up to 0.
        IncompatibleError: the two point in opposite directions.
    """
    return _arc(gram, float(shares(as_tensor(weights, gram))[-1]), "nuslerp")


def _arc(gram: torch.Tensor, t: float, method: str) -> torch.Tensor:
    if gram.shape[0] != 2 or not math.isfinite(t):
        message = f"MRG003 {method} of {gram.shape[0]} deltas at t = {t!r}"
        raise RefError(message, hint=f"{method} takes two adapters and a number t")
    known = directions(gram)
    if not known.exist.all():
        return torch.tensor([1 - t, t], dtype=gram.dtype, device=gram.device)
    angle = math.acos(float(known.cosines[0, 1]))
    if math.pi - angle < OPPOSED:
        message = f"{method}: the two deltas point in opposite directions, so no arc is shortest"
        raise IncompatibleError(message, hint="use exact weights for this target")
    if angle == 0:
        return torch.tensor([1 - t, t], dtype=gram.dtype, device=gram.device)
    ends = [math.sin((1 - t) * angle), math.sin(t * angle)]
    return torch.tensor(ends, dtype=gram.dtype, device=gram.device) / math.sin(angle)


def multislerp(
    gram: torch.Tensor, weights: Sequence[float], *, normalize: bool = True
) -> torch.Tensor:
    """Return c of the weighted mean direction with the weighted mean length.

    Semantics: ``Σ cₜΔₜ = (Σ wₜ‖Δₜ‖) · m / ‖m‖`` with ``m = Σ wₜ·Δₜ/‖Δₜ‖``: ``multislerp`` of
    mergekit. It also moves along the tangent at m by Σ wₜ(uₜ − ⟨uₜ, m̂⟩m̂), which is 0 because m is
    the mean itself; the step is left out.

    Args:
        gram: (N, N).
        weights: one for each delta.
        normalize: divide them by their sum.

    Returns:
        (N,), float64.

    Raises:
        RefError: the weights add up to 0 and are to be normalised.
        IncompatibleError: the weighted directions cancel.
    """
    numbers = as_tensor(weights, gram)
    numbers = shares(numbers) if normalize else numbers
    known = directions(gram)
    if not known.exist.any():
        return numbers
    units = torch.where(known.exist, numbers, 0.0)
    length = unit_length(units, known.cosines)
    if length <= OPPOSED * units.abs().sum():
        message = "multislerp: the weighted directions of the deltas cancel"
        raise IncompatibleError(message, hint="use other weights, or exact ones")
    scale = (numbers * known.norms).sum() / length
    return torch.where(known.exist, scale * units / known.norms, 0.0)
