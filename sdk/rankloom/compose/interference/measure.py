"""Measures one target."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import torch

from rankloom.compose.factors.core import cores
from rankloom.compose.factors.rank import choose
from rankloom.compose.interference.signs import meeting, sample
from rankloom.compose.interference.spaces import bases, crosstalk, overlap
from rankloom.compose.interference.value import Pair, Scope, Spectrum
from rankloom.recipe.rank import Energy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.compose.factors.value import Factors
    from rankloom.compose.interference.signs import Meeting
    from rankloom.compose.interference.value import Part


def measure(name: str, parts: Sequence[Part], *, rows: int, seed: int) -> Scope:
    """Measure one target; no delta is made but of the sampled rows.

    Args:
        name: the target's name; it decides, with ``seed``, which rows are sampled.
        parts: at least one, of one shape, no weight 0.
        rows: how many rows to sample at most.
        seed: another one gives another sample.

    Raises:
        IncompatibleError: the shapes differ.
        AdapterError: a factor holds NaN or infinity.
    """
    factors = [part.factors for part in parts]
    small = cores(factors)
    deltas = [part.weight * (core.b @ core.a) for part, core in zip(parts, small, strict=True)]
    flat = torch.stack(deltas).flatten(1)
    products = flat @ flat.T
    chosen = sample(name, factors[0].shape[0], rows, seed) if len(parts) > 1 else None
    met = None if chosen is None else meeting(factors, [part.weight for part in parts], chosen)
    return Scope(
        name=name,
        targets=1,
        squares=tuple((part.label, float(products[i, i])) for i, part in enumerate(parts)),
        square=float(flat.sum(0).square().sum()),
        pairs=() if met is None else _pairs(parts, small, products, met),
        spectrum=_spectrum(sum(part.rank for part in factors), deltas),
    )


def _pairs(
    parts: Sequence[Part], small: Sequence[Factors], products: torch.Tensor, met: Meeting
) -> tuple[Pair, ...]:
    out, into = parts[0].factors.shape
    spaces = [bases(core) for core in small]
    found = []
    for i, j in combinations(range(len(parts)), 2):
        (out_i, in_i), (out_j, in_j) = spaces[i], spaces[j]
        found.append(
            Pair(
                first=parts[i].label,
                second=parts[j].label,
                targets=1,
                square_first=float(products[i, i]),
                square_second=float(products[j, j]),
                inner=float(products[i, j]),
                overlap_out=overlap(out_i, out_j),
                overlap_in=overlap(in_i, in_j),
                chance_out=max(out_i.shape[1], out_j.shape[1]) / out,
                chance_in=max(in_i.shape[1], in_j.shape[1]) / into,
                crosstalk_out=crosstalk(small[i].b, small[j].b),
                crosstalk_in=crosstalk(small[i].a.T, small[j].a.T),
                met=float(met.met[i, j]),
                opposed=float(met.opposed[i, j]),
            )
        )
    return tuple(found)


def _spectrum(rank: int, deltas: Sequence[torch.Tensor]) -> Spectrum:
    values = torch.linalg.svdvals(torch.stack(list(deltas)).sum(0))
    size = sum(float(torch.linalg.vector_norm(delta)) for delta in deltas)
    noise = size * rank * torch.finfo(values.dtype).eps
    values = values[values > noise]
    if not len(values):
        return Spectrum(rank, 0, 0.0)
    shares = values / values.sum()
    effective = float(torch.exp(-torch.xlogy(shares, shares).sum()))
    return Spectrum(rank, choose(values, Energy(0.99)), effective)
