"""Factors from rows, against a dense SVD."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elementwise_truth import dense, random_parts
from rankloom.compose.tiles.methods import combine
from rankloom.compose.tiles.to_factors import Approximated, to_factors
from rankloom.errors import RefError


def approximate(matrix: torch.Tensor, **options: int) -> Approximated:
    return to_factors(lambda start, stop: matrix[start:stop], tuple(matrix.shape), **options)


def residual(matrix: torch.Tensor, found: Approximated) -> float:
    exact = matrix.double()
    return float((exact - found.b.double() @ found.a.double()).norm() / exact.norm())


def optimum(matrix: torch.Tensor, rank: int) -> float:
    values = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    return float(np.sqrt((values[rank:] ** 2).sum() / (values**2).sum()))


@pytest.mark.parametrize("shape", [(300, 200), (90, 400), (3, 50), (40, 1)])
def test_a_delta_of_that_rank_is_found_again(shape: tuple[int, int]) -> None:
    [part] = random_parts(shape, [8], seed=5)
    matrix = torch.from_numpy(dense([part])[0]).float()
    found = approximate(matrix, rank=8)
    assert found.b.shape == (shape[0], min(8, *shape))
    assert found.a.shape == (min(8, *shape), shape[1])
    assert found.residual <= 2e-7  # float32 factors cannot do better
    assert found.residual == pytest.approx(residual(matrix, found), rel=1e-6)


@pytest.mark.parametrize("rank", [4, 16, 64])
def test_of_ties_the_residual_is_told_and_near_the_best(rank: int) -> None:
    ties = combine("ties", random_parts((300, 250), (16, 8), seed=6), [1, 1], {"density": 0.2})
    matrix = ties.rows(0, 300)
    found = to_factors(ties.rows, ties.shape, rank=rank)
    assert found.residual == pytest.approx(residual(matrix, found), rel=1e-6)
    # The spectrum of what was trimmed is nearly flat, the worst case for a random basis.
    assert optimum(matrix, rank) <= found.residual <= 1.03 * optimum(matrix, rank)


def test_a_steep_spectrum_keeps_its_small_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = (
        torch.linalg.qr(torch.randn(size, 10, generator=generator, dtype=torch.float64)).Q
        for size in (200, 150)
    )
    matrix = (u * torch.logspace(0, -5, 10, dtype=torch.float64)) @ v.T
    for rank in (3, 8):
        found = approximate(matrix, rank=rank)
        assert found.residual <= 1.001 * optimum(matrix, rank) + 1e-7


def test_passes_improve_and_a_seed_decides() -> None:
    ties = combine("ties", random_parts((200, 300), (16, 8), seed=7), [1, 1], {"density": 0.1})
    once = to_factors(ties.rows, ties.shape, rank=8, passes=1, oversample=1)
    often = to_factors(ties.rows, ties.shape, rank=8, passes=6, oversample=1)
    assert often.residual < once.residual
    again = to_factors(ties.rows, ties.shape, rank=8, passes=1, oversample=1)
    assert torch.equal(once.b, again.b)
    other = to_factors(ties.rows, ties.shape, rank=8, passes=1, oversample=1, seed=1)
    assert not torch.equal(once.b, other.b)


def test_signs_are_settled() -> None:
    found = approximate(torch.randn(60, 50), rank=5)
    assert (found.b.gather(0, found.b.abs().argmax(0, keepdim=True)) > 0).all()


def test_of_zero_there_is_zero_and_no_residual() -> None:
    found = approximate(torch.zeros(20, 30), rank=4)
    assert not found.b.any()
    assert found.residual == 0


@pytest.mark.parametrize("options", [{"rank": 0}, {"rank": 2, "passes": 0}, {"rank": True}])
def test_refusals(options: dict[str, int]) -> None:
    with pytest.raises(RefError):
        approximate(torch.ones(4, 4), **options)
