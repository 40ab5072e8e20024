"""Products that nothing can round, against whole numbers of any size."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankloom_kernels.grid import bits_for, on_grid

NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0]),
    st.floats(-1e6, 1e6, allow_nan=False),
    st.floats(-1e-6, 1e-6, allow_nan=False, allow_subnormal=False),
)


@given(rank=st.integers(1, 40), data=st.data())
def test_every_product_is_exact(rank: int, data: st.DataObject) -> None:
    row = data.draw(st.lists(NUMBERS, min_size=rank, max_size=rank))
    column = data.draw(st.lists(NUMBERS, min_size=rank, max_size=rank))
    b, a = on_grid(torch.tensor([row]), torch.tensor(column)[:, None])
    pairs = zip(b[0].tolist(), a[:, 0].tolist(), strict=True)
    exact = sum((Fraction(left) * Fraction(right) for left, right in pairs), Fraction(0))
    assert Fraction(float((b @ a)[0, 0])) == exact


@pytest.mark.parametrize("rank", [1, 2, 9, 16, 32, 33, 64, 256, 1024])
def test_sums_of_the_largest_numbers_fit(rank: int) -> None:
    largest = 1 << bits_for(rank)
    assert rank * largest**2 <= 2**53
    assert bits_for(16) == bits_for(32) == 24
    assert rank * (2 * largest) ** 2 * 2 > 2**53  # and one bit more would not


@pytest.mark.parametrize("rank", [1, 16, 32, 64, 256])
def test_it_errs_no_more_than_a_float32_product(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    b = torch.randn(200, rank, generator=generator, dtype=torch.float64)
    a = torch.randn(rank, 300, generator=generator, dtype=torch.float64)
    # Twelve orders of magnitude that cancel in the product, as no training balances factors.
    skew = torch.logspace(-6, 6, rank, dtype=torch.float64) if rank > 1 else torch.ones(1)
    exact = b @ a
    grid_b, grid_a = on_grid(b * skew, a / skew[:, None])
    error = float((grid_b @ grid_a - exact).norm() / exact.norm())
    rounded = b.float().double() @ a.float().double()  # what rounding the factors alone costs
    usual = float((rounded - exact).norm() / exact.norm())
    # A grid is as coarse for small numbers as for the largest: some four times the error, and
    # twice as much with every bit that the sum needs.
    assert error <= usual * 6 * 2 ** (24 - min(24, bits_for(rank)))


@pytest.mark.parametrize("shape", [(67, 33, 1001), (131, 16, 4097)])
def test_no_number_of_threads_or_rows_shows(shape: tuple[int, int, int]) -> None:
    out, rank, into = shape
    generator = torch.Generator().manual_seed(rank)
    b, a = on_grid(
        torch.randn(out, rank, generator=generator), torch.randn(rank, into, generator=generator)
    )
    whole = b @ a
    before = torch.get_num_threads()
    try:
        for threads in (1, 3, 4):
            torch.set_num_threads(threads)
            for height in (1, 3, 64):
                parts = [b[row : row + height] @ a for row in range(0, out, height)]
                assert torch.equal(torch.cat(parts), whole)
    finally:
        torch.set_num_threads(before)


def test_what_has_no_columns_or_is_zero() -> None:
    b, a = on_grid(torch.zeros(3, 0), torch.zeros(0, 4))
    assert torch.equal(b @ a, torch.zeros(3, 4, dtype=torch.float64))
    b, a = on_grid(torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0], [0.0]]))
    assert not (b @ a).any()
