"""The same bits from torch and from Triton, for any tiles and threads; and the right ones."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import interpreted  # noqa: F401 - bfloat16 as on a GPU
from rankloom_kernels import Term, fold, merge_, merge_many_, merge_reference, strict
from rankloom_kernels.strict import exact_parts, rounded_to_odd

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(values: torch.Tensor) -> torch.Tensor:
    return values.contiguous().view(BITS[values.itemsize])


@settings(max_examples=250)
@given(
    rows=st.integers(0, 80),
    columns=st.integers(0, 80),
    ranks=st.lists(st.integers(0, 20), min_size=0, max_size=4),
    coefficients=st.lists(st.floats(-8, 8), min_size=4, max_size=4),
    dtype=st.sampled_from(DTYPES),
    out=st.sampled_from(DTYPES),
    factors=st.sampled_from(DTYPES[:3]),
    block=st.sampled_from([1, 100, 1 << 15]),
    threads=st.sampled_from([1, 2]),
    is_transposed=st.booleans(),
    seed=st.integers(0, 1 << 20),
)
def test_same_bits_whatever_computes_them(
    rows: int,
    columns: int,
    ranks: list[int],
    coefficients: list[float],
    dtype: torch.dtype,
    out: torch.dtype,
    factors: torch.dtype,
    block: int,
    threads: int,
    is_transposed: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator).to(dtype)
    terms = [
        Term(
            torch.randn(rows, rank, generator=generator).to(factors),
            torch.randn(rank, columns, generator=generator).to(factors),
            coefficient,
        )
        for rank, coefficient in zip(ranks, coefficients, strict=False)
    ]
    weight[weight.abs() < 0.1] = -0.0
    found = [torch.full((rows, columns), torch.nan, dtype=out) for _ in range(3)]
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict, "_BLOCK", block)
        torch.set_num_threads(threads)
        try:
            merge_many_([weight], [terms], outs=[found[0]], numerics="strict", backend="torch")
        finally:
            torch.set_num_threads(before)
    merge_many_([weight], [terms], outs=[found[1]], numerics="strict")
    if is_transposed:  # the kernel goes by columns then
        found[2] = torch.full((columns, rows), torch.nan, dtype=out).T
        weight = weight.T.contiguous().T
    merge_many_([weight], [terms], outs=[found[2]], numerics="strict", backend="triton")
    assert torch.equal(bits(found[0]), bits(found[1]))
    assert torch.equal(bits(found[0]), bits(found[2]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_the_exact_sum_rounded_once(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(6, 7, generator=generator) * 0.02).to(dtype)
    b = torch.randn(6, 5, generator=generator).to(dtype)
    a = torch.randn(5, 7, generator=generator).to(dtype)
    found = merge_(weight.clone(), [Term(b, a, 0.3)], numerics="strict")
    for i in range(6):
        for j in range(7):
            exact = Fraction(weight[i, j].item()) + Fraction(0.3) * sum(
                Fraction(b[i, k].item()) * Fraction(a[k, j].item()) for k in range(5)
            )
            near = [found[i, j], *(neighbour(found[i, j], way) for way in (1, -1))]
            errors = [abs(Fraction(value.item()) - exact) for value in near]
            # Of 42 sums none lies so near to the middle that 48 bits of 0.3 would not tell.
            assert errors[0] == min(errors)


def neighbour(value: torch.Tensor, way: int) -> torch.Tensor:
    return (value.view(torch.int16) + way).view(value.dtype)


@pytest.mark.parametrize("count", [1, 4, 8])
def test_it_is_the_float64_sum_rounded_once(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    weight = (torch.randn(256, 256, generator=generator) * 0.02).to(torch.bfloat16)
    terms = [
        Term(
            torch.randn(256, 16, generator=generator) * 0.02,
            torch.randn(16, 256, generator=generator) * 0.02,
            0.1 + number / 3,
        )
        for number in range(count)
    ]
    found = merge_(weight.clone(), terms, numerics="strict")
    # Two float64 sums in other orders differ by 2^-53: no boundary lies between them here.
    truth = merge_reference(weight, terms)
    assert torch.equal(found, rounded_to_odd(truth).to(torch.bfloat16))


@given(value=st.floats(width=64), dtype=st.sampled_from(DTYPES[:2]))
def test_rounding_to_odd_first_is_rounding_once(value: float, dtype: torch.dtype) -> None:
    exact = torch.tensor([value, 1 + 2.0**-8 + 2.0**-40, -1e300, 1e-300], dtype=torch.float64)
    found = rounded_to_odd(exact).to(dtype)
    for number, rounded in zip(exact.tolist(), found, strict=True):
        if math.isnan(number):
            assert rounded.isnan()
        elif abs(number) <= torch.finfo(dtype).max:
            near = [rounded, *(neighbour(rounded, way) for way in (1, -1))]
            errors = [
                abs(Fraction(one.item()) - Fraction(number)) for one in near if one.isfinite()
            ]
            assert errors[0] == min(errors)


def test_rounding_twice_would_show() -> None:
    # Just above the middle of two bfloat16 numbers: float32 rounds it to that middle.
    exact = torch.tensor([1 + 2.0**-8 + 2.0**-40], dtype=torch.float64)
    assert exact.to(torch.float32).to(torch.bfloat16).item() == 1.0
    assert rounded_to_odd(exact).to(torch.bfloat16).item() == 1 + 2**-7


def test_coefficients_are_split_only_if_they_need_more_bits() -> None:
    b, a = torch.randn(3, 2), torch.randn(2, 4)
    assert len(exact_parts([Term(b, a, 0.25)])) == 1
    assert exact_parts([Term(b, a, 0.0)]) == []
    high, low = exact_parts([Term(b, a, 0.1)])
    # 48 of the 53 bits of the product are kept.
    assert torch.allclose(high.b.double() + low.b, b.double() * 0.1, rtol=2**-47, atol=0)


def test_refusals() -> None:
    weight, term = torch.zeros(3, 4), Term(torch.ones(3, 2), torch.ones(2, 4))
    with pytest.raises(TypeError, match="folded"):
        merge_(weight, fold([term]), numerics="strict")
    with pytest.raises(TypeError, match="float64"):
        merge_(weight, [term._replace(b=term.b.double())], numerics="strict")
    with pytest.raises(ValueError, match="asked for"):
        merge_(weight, [term], accumulate=torch.float32, numerics="strict")
    with pytest.raises(ValueError, match="one shape"):
        merge_(weight, [term, Term(term.a.T, term.b.T)], numerics="strict")
    with pytest.raises(TypeError, match="int8"):
        merge_(weight.to(torch.int8), [term], numerics="strict")
    assert not weight.any()
