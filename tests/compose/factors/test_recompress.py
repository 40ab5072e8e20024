from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from factor_cases import dense, make, numbers, several, size, total
from rankloom.compose.factors.rank import INVISIBLE, choose
from rankloom.compose.factors.recompress import recompress
from rankloom.compose.factors.value import Factors
from rankloom.errors import RefError
from rankloom.recipe.rank import Energy, Rank


def tail(values: torch.Tensor, rank: int) -> float:
    """The least error that a matrix of this rank can have, by Eckart and Young."""
    return float(values[rank:].norm())


@settings(max_examples=150)
@given(
    parts=several(),
    weights=st.lists(numbers, min_size=4, max_size=4),
    rank=st.integers(1, 12),
)
def test_nothing_of_that_rank_is_nearer(
    parts: list[Factors], weights: list[float], rank: int
) -> None:
    weights = weights[: len(parts)]
    delta = total(parts, weights)
    values = torch.linalg.svdvals(delta)
    result = recompress(parts, weights, rank=rank)
    rounding = 1e-13 * size(parts, weights)  # a hundred roundings of 2^-53
    assert 1 <= result.rank <= rank
    residual = float((dense(result.factors) - delta).norm())
    assert residual <= (1 + 1e-6) * tail(values, rank) + rounding
    assert abs(result.optimum - tail(values, result.rank)) <= rounding
    assert abs(result.norm - float(delta.norm())) <= rounding
    assert (result.values - values[: result.rank]).abs().max() <= rounding
    if result.rank < rank:  # fewer columns only if there is no more to hold
        assert tail(values, result.rank) <= rounding


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steep", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("rank", [1, 5, 16, 23])
def test_the_error_is_known_and_the_least(rank: int, steep: float, dtype: torch.dtype) -> None:
    parts = [make(300, 200, 16, 1, steep=steep, dtype=dtype), make(300, 200, 8, 2, dtype=dtype)]
    weights = [1.0, -0.7]
    delta = total(parts, weights)
    values = torch.linalg.svdvals(delta)
    result = recompress(parts, weights, rank=rank)
    residual = float((dense(result.factors) - delta).norm())
    assert residual <= (1 + 1e-6) * tail(values, rank) + 1e-12 * float(delta.norm())
    assert result.error == pytest.approx(residual / float(delta.norm()), rel=1e-9, abs=1e-12)


def test_columns_are_canonical() -> None:
    parts = [make(40, 30, 5, 1), make(40, 30, 4, 2)]
    result = recompress(parts, [1, 2], rank=6)
    b, a = result.factors
    root = result.values.sqrt()
    # 1e-12: orthonormality is that of a float64 SVD whose values differ by less than 1000.
    assert ((b.T @ b) - torch.diag(result.values)).abs().max() <= 1e-12 * result.values[0]
    assert ((a @ a.T) - torch.diag(result.values)).abs().max() <= 1e-12 * result.values[0]
    assert (b.norm(dim=0) - root).abs().max() <= 1e-12 * root[0]
    largest = b.abs().argmax(dim=0)
    assert (b[largest, torch.arange(6)] > 0).all()
    # The same delta from factors with all signs turned has the same columns.
    turned = [Factors(-part.b, -part.a) for part in reversed(parts)]
    again = recompress(turned, [2, 1], rank=6)
    assert (again.factors.b - b).abs().max() <= 1e-10
    assert (again.factors.a - a).abs().max() <= 1e-10


def test_what_spans_nothing_new_takes_no_rank() -> None:
    one = make(50, 40, 4, 1)
    result = recompress([one, one, Factors(one.b * 0.5, one.a)], [1, 1, 1], rank=12)
    assert result.rank == 4
    assert result.error < 1e-15
    assert (dense(result.factors) - 2.5 * dense(one)).abs().max() <= 1e-13 * size([one], [2.5])


@pytest.mark.parametrize("rank", [1, 3, "auto", Energy(0.9), Energy(1.0)])
def test_deltas_that_cancel_leave_one_column_of_zeros(rank: Rank) -> None:
    one = make(50, 40, 4, 1)
    for parts, weights in (([one, one], [1, -1]), ([one], [0])):
        result = recompress(parts, weights, rank=rank)
        assert result.factors.rank == 1
        assert dense(result.factors).abs().max() <= 1e-14 * size([one], [1])
        assert math.isfinite(result.error)
    assert result.error == result.norm == 0
    assert not dense(result.factors).any()


def test_a_fresh_adapter_whose_b_is_zero_changes_nothing() -> None:
    one, fresh = make(50, 40, 4, 1), make(50, 40, 8, 2)
    fresh.b.zero_()
    assert recompress([one, fresh], rank="auto").rank == 4
    assert recompress([fresh, one], rank=12).rank == 4


@pytest.mark.parametrize("power", [8, -8])
def test_factors_of_very_different_size_lose_no_digits(power: int) -> None:
    one, other = make(60, 50, 5, 1), make(60, 50, 5, 2)
    skewed = [
        Factors(one.b * 10.0**power, one.a * 10.0**-power),
        Factors(other.b * 10.0**-power, other.a * 10.0**power),
    ]
    delta = total([one, other], [1, 1])
    result = recompress(skewed, rank=10)
    # ‖B̂‖·‖Â‖ is 10^16 times ‖ΔW‖ here; an error relative to it would leave nothing.
    assert (dense(result.factors) - delta).norm() <= 1e-12 * delta.norm()
    assert result.rank == 10


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999999, 1.0])
@pytest.mark.parametrize("steep", [0.0, 0.2])
def test_energy_is_the_smallest_rank_that_keeps_it(share: float, steep: float) -> None:
    parts = [make(60, 50, 8, seed, steep=steep) for seed in (1, 2)]
    squares = torch.linalg.svdvals(total(parts, [1, 1])).square()
    result = recompress(parts, rank=Energy(share))
    kept = (squares[: result.rank].sum() / squares.sum()).item()
    less = (squares[: result.rank - 1].sum() / squares.sum()).item()
    assert kept >= share - 1e-12  # sums of float64 squares
    assert less < share
    assert result.error == pytest.approx(math.sqrt(max(0, 1 - kept)), abs=1e-7)
    assert recompress(parts, rank=Energy(share, max_rank=3)).rank == min(3, result.rank)


def test_energy_that_is_kept_exactly_is_enough() -> None:
    values = torch.tensor([2.0, 2.0, 2.0, 2.0], dtype=torch.float64)
    kept = [choose(values, Energy(share)) for share in (0.25, 0.5, 0.500001, 0.75, 1.0)]
    assert kept == [1, 2, 3, 3, 4]


def test_auto_drops_what_float32_cannot_hold_and_nothing_else() -> None:
    parts = [make(80, 70, 12, 1, steep=1.0), make(80, 70, 2, 2)]
    values = torch.linalg.svdvals(total(parts, [1, 1]))
    result = recompress(parts, rank="auto")
    assert result.rank < 14
    assert tail(values, result.rank) <= INVISIBLE * float(values.norm())
    assert tail(values, result.rank - 1) > INVISIBLE * float(values.norm())
    flat = [make(80, 70, 6, seed) for seed in (1, 2)]
    assert recompress(flat, rank="auto").rank == 12


@pytest.mark.parametrize("rank", [0, -1, True, 2.0, "best", None, "16"])
def test_ranks_that_are_none(rank: object) -> None:
    with pytest.raises(RefError, match="is not a rank"):
        recompress([make(5, 4, 2, 0)], rank=rank)  # type: ignore[arg-type]


def test_energies_that_are_none() -> None:
    for share in (0.0, -1.0, 1.5, math.nan):
        with pytest.raises(RefError, match="energy"):
            Energy(share)
    with pytest.raises(RefError, match="is not a rank"):
        Energy(0.9, max_rank=0)
