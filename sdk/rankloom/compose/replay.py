"""After a composition was saved: it is read as PEFT reads it, and compared with its parts."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from rankloom.adapter.change import Rows
from rankloom.adapter.reader import read
from rankloom.change.dense import Dense
from rankloom.change.formula import Sum, Weighted
from rankloom.change.replay import check_tile, draw, sample
from rankloom.errors import IntegrityError
from rankloom.tensorfile.index import sizes, spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rankloom.change.formula import Summand, TargetChange
    from rankloom.tensorfile.index import Spans

_UNIT = 2.0**-24
"""Half an ε of float32, in which factors are kept at least."""


MOST = 100
"""Targets that are compared: 5 % of the time that saving the 224 of a 7B model takes."""


def replay(changes: Sequence[TargetChange], folder: Path, seed: str) -> int:
    """Compare one tile of targets of a saved composition with what it was made of.

    Args:
        changes: what it was made of.
        folder: the PEFT folder.
        seed: what decides which tiles.

    Returns:
        The number of targets that were compared: up to :data:`MOST`, not among them what only a
        base could tell.

    Raises:
        IntegrityError: a target is another than it may be, or not there.
    """
    wanted = _by_name((one.name, one.formula.terms) for one in changes)
    found = _by_name((one.name, (Weighted(1.0, one.change),)) for one in read(folder).targets)
    if odd := sorted(wanted.keys() ^ found.keys()):
        message = f"MRG009 {odd[0]} is in the composition or in what was written, but not in both"
        raise IntegrityError(message, hint="nothing was kept; this is a fault of rankloom")
    known = [name for name in wanted if not wanted[name].needs_base]
    known = sorted(known, key=lambda name: draw(f"{seed}/{name}"))[:MOST]
    for name in known:
        _check(name, wanted[name], found[name], seed)
    return len(known)


def _by_name(items: Iterable[tuple[str, tuple[Weighted, ...]]]) -> dict[str, Sum]:
    terms: dict[str, tuple[Weighted, ...]] = defaultdict(tuple)
    for name, some in items:
        terms[name] += some
    return {name: Sum(some) for name, some in terms.items()}


def _check(name: str, wanted: Sum, found: Sum, seed: str) -> None:
    known = [one for one in (wanted.shape, found.shape) if one is not None]  # a scalar's is ()
    shape = known[0] if known else _least(found.terms[0].change)
    tile = sample(seed, name, spans((), shape))
    expected, magnitude = _evaluate(wanted, shape, tile)
    written, size = _evaluate(found, shape, tile)
    # Each factor is rounded at most once after a coefficient was multiplied into one of them.
    allowed = 4 * _UNIT * torch.maximum(magnitude, size)
    check_tile(written, expected, allowed, name, tile)


def _least(change: Summand) -> tuple[int, ...]:
    """Return the smallest shape that a parameter can have some rows of which are trained."""
    assert isinstance(change, Rows)  # noqa: S101 - all others know their shape
    return max(change.indices, default=0) + 1, change.value.shape[-1]


def _evaluate(
    formula: Sum, shape: tuple[int, ...], tile: Spans
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a formula makes of a parameter full of zeros, and the size of its summands."""
    dense = Dense(formula, shape, lambda: torch.zeros(shape).double(), once=True)
    total, magnitude, zeros = (torch.zeros(sizes(tile)).double() for _ in range(3))
    dense.add_(total, zeros, tile)
    dense.add_magnitude_(magnitude, tile)
    return total, magnitude
