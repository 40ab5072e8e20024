"""SCE: select, calculate, erase."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rankloom.compose.tiles.arguments import densities_of, one_for_each
from rankloom.compose.tiles.consensus import Consensus
from rankloom.compose.tiles.deltas import Deltas
from rankloom.compose.tiles.elementwise import Elementwise
from rankloom.compose.tiles.sift import Varied, variance
from rankloom.compose.tiles.threshold import kth_largest
from rankloom.errors import IncompatibleError, RefError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from rankloom.compose.factors.value import Factors


def sce(
    parts: Sequence[Factors],
    weights: Sequence[float],
    *,
    select_topk: float = 1.0,
    lambda_: float = 1.0,
) -> Elementwise:
    """Keep where deltas differ most, weigh each by its energy there, merge what agrees in sign.

    *FuseChat: Knowledge Fusion of Chat Models*, arXiv 2408.07990. Select: of the elements whose
    variance over the deltas is not 0, the ``select_topk`` share with the largest. Calculate:
    ``ηₙ = Σ Δₙ² / Σₘ Σ Δₘ²`` over the selected elements of the target. Erase: the sign of Σ Δₙ is
    elected, and the result is ``Σ ηₙ·Δₙ / Σ ηₙ`` over what agrees.

    Args:
        parts: deltas of one shape, scale folded in.
        weights: all 1: the method finds its own.
        select_topk: share of elements that stay, above 0. With 1 there is no selection.
        lambda_: factor of the result.

    Raises:
        RefError: a weight is not 1, or an option cannot be.
        IncompatibleError: there are no parts, their shapes differ, or the deltas are all equal, so
            that there is nothing to select by.
        AdapterError: a factor holds NaN or infinity, or elements may overflow.
    """
    if set(one_for_each(weights, parts, "weights")) - {1}:
        message = f"MRG003 sce finds weights of its own, but was given {tuple(weights)}"
        raise RefError(message, hint="leave the weights out, or take ties for weights of yours")
    [share] = densities_of(select_topk, [None])
    deltas = Deltas.of(parts)
    sift = Varied(_least_variance(deltas, share) if share < 1 else 0.0)
    own = _energies(deltas, sift)
    return Elementwise(deltas, sift, Consensus(own, "unweighted", "total", "weights", lambda_))


def _least_variance(deltas: Deltas, share: float) -> float:
    def variances() -> Iterator[torch.Tensor]:
        room = deltas.buffer(len(deltas))
        for block in deltas.blocks():
            yield variance(deltas.stack_(block, room))

    varied = sum(int(some.count_nonzero()) for some in variances())
    if varied == 0:
        message = f"{len(deltas)} deltas {deltas.shape} agree everywhere: sce can select nothing"
        raise IncompatibleError(message, hint="give select_topk=1, or different adapters")
    return kth_largest(variances, [max(1, int(share * varied))])[0]


def _energies(deltas: Deltas, sift: Varied) -> tuple[float, ...]:
    """Return Σ Δₙ² over what stays, as shares of all; equal ones if all deltas are 0."""
    room = deltas.buffer(len(deltas))
    rows: list[list[float]] = []
    for block in deltas.blocks():
        stack = deltas.stack_(block, room)
        sift(stack, block[0])
        # Sums of rows do not depend on the number of threads, and fsum is exact.
        rows += stack.double().square_().sum(2).T.tolist()
    energies = [math.fsum(column) for column in zip(*rows, strict=True)]
    total = math.fsum(energies)
    if total == 0:
        return (1 / len(deltas),) * len(deltas)
    return tuple(energy / total for energy in energies)
