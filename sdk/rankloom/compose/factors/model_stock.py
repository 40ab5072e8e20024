"""The point nearest to where all fine-tunes come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.compose.factors.directions import as_tensor, directions, weighted
from rankloom.errors import IncompatibleError, RefError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


def model_stock(gram: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Return c = w·t/N with ``t = N·cos θ / (1 + (N − 1)·cos θ)``.

    *Model Stock: All we need is just a few fine-tuned models*, arXiv 2403.19522. The paper has one
    θ; as in mergekit it is the mean of the pairs' cosines, per target (mergekit's ``filter_wise``
    is no function of the Gram matrix). It is meant for several runs of one task: of unrelated
    adapters cos θ is about 0, and so is the result.

    Args:
        gram: (N, N), N at least 2.
        weights: what the deltas are multiplied by beforehand.

    Returns:
        (N,), float64.

    Raises:
        RefError: there are fewer than two deltas.
        IncompatibleError: the deltas point away from each other so far that t has no value.
    """
    numbers = as_tensor(weights, gram)
    count = len(numbers)
    if count < 2:
        message = "MRG003 model_stock needs the angle between at least two adapters"
        raise RefError(message, hint="name a second run of the same task, or use exact")
    cosines = directions(weighted(gram, numbers)).cosines
    cosine = (cosines.sum() - cosines.trace()) / (count * (count - 1))
    below = 1 + (count - 1) * cosine
    if below <= 1e-9:
        message = f"model_stock: {count} deltas cancel (mean cosine {float(cosine):.3g})"
        raise IncompatibleError(message, hint="it is for several runs of one task; use exact")
    return numbers * cosine / below
