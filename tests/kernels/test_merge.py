from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankloom_kernels import Term, Workspace, fold, merge_, merge_reference

WEIGHTS = {1: [0.7], 2: [1.0, -0.5], 4: [0.3, -1.2, 2.0, -0.01]}


def make(
    count: int,
    *,
    dtype: torch.dtype,
    factors: torch.dtype,
    shape: tuple[int, int] = (384, 512),
    rank: int = 16,
    seed: int = 0,
) -> tuple[torch.Tensor, list[Term]]:
    """A weight of the scale of real models and deltas of about 1 % of it, as LoRA's are."""
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(shape, generator=generator) * 0.02).to(dtype)
    terms = []
    for weight_of in WEIGHTS.get(count, [1.0] * count):
        b = torch.randn(shape[0], rank, generator=generator) * 0.005
        a = torch.randn(rank, shape[1], generator=generator) * 0.02
        terms.append(Term(b.to(factors), a.to(factors), weight_of * 2.0))
    return weight, terms


def steps_apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How many representable values lie between two 16-bit tensors, element by element."""

    def ordered(tensor: torch.Tensor) -> torch.Tensor:
        bits = tensor.view(torch.int16).int()
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    return (ordered(one) - ordered(other)).abs()


@pytest.mark.parametrize("factors", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_bf16_is_the_float64_result_rounded_once(count: int, factors: torch.dtype) -> None:
    weight, terms = make(count, dtype=torch.bfloat16, factors=factors, shape=(1024, 1024))
    expected = merge_reference(weight, terms).to(torch.bfloat16)
    steps = steps_apart(merge_(weight.clone(), terms), expected)
    # A float32 sum errs by about 2^-24, a bfloat16 step is 2^-8: one sum in about 2^16 falls on
    # the other side of a rounding boundary, and none farther than the neighbour.
    assert steps.max() <= 1
    assert (steps != 0).double().mean() <= 1e-4


@pytest.mark.parametrize("count", [1, 2, 4])
def test_fp16_is_the_float64_result_rounded_once(count: int) -> None:
    weight, terms = make(count, dtype=torch.float16, factors=torch.float16, shape=(1024, 1024))
    expected = merge_reference(weight, terms).to(torch.float16)
    steps = steps_apart(merge_(weight.clone(), terms), expected)
    assert steps.max() <= 1
    # As above with steps of 2^-11: eight times as many boundaries.
    assert (steps != 0).double().mean() <= 8e-4


@pytest.mark.parametrize("count", [1, 2, 4])
def test_float32_is_within_a_few_roundings(count: int) -> None:
    weight, terms = make(count, dtype=torch.float32, factors=torch.float32)
    expected = merge_reference(weight, terms)
    found = merge_(weight.clone(), terms)
    bound = 2e-6 + 2e-6 * weight.abs().max().item()  # sixteen roundings of 2^-24, at most
    assert (found - expected).abs().max() <= bound


def test_float64_weight_is_summed_in_float64() -> None:
    weight, terms = make(2, dtype=torch.float64, factors=torch.float32)
    found = merge_(weight.clone(), terms)
    # Only the order of summation may differ: a few roundings of 2^-53 of values below 1.
    assert (found - merge_reference(weight, terms)).abs().max() <= 1e-15


def test_float64_accumulation_on_request_rounds_bf16_exactly() -> None:
    weight, terms = make(4, dtype=torch.bfloat16, factors=torch.bfloat16)
    found = merge_(weight.clone(), terms, accumulate=torch.float64)
    # Two float64 sums in other orders differ by 2^-53: no boundary lies between them here.
    assert torch.equal(found, merge_reference(weight, terms).to(torch.bfloat16))


@settings(max_examples=60)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    ranks=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    coefficients=st.lists(st.floats(-8, 8), min_size=4, max_size=4),
    tile=st.sampled_from([1, 64, 1000, 1 << 20]),
    seed=st.integers(0, 1 << 20),
)
def test_any_shape_rank_coefficient_and_tile(
    rows: int, columns: int, ranks: list[int], coefficients: list[float], tile: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    terms = [
        Term(
            torch.randn(rows, rank, generator=generator),
            torch.randn(rank, columns, generator=generator),
            coefficient,
        )
        for rank, coefficient in zip(ranks, coefficients, strict=False)
    ]
    found = merge_(weight.clone(), terms, workspace=Workspace(tile))
    size = weight.abs() + sum(abs(c) * (b.abs() @ a.abs()) for b, a, c in terms)
    # Standard bound of a sum of n products: n roundings of 2^-24 of the sum of magnitudes.
    bound = (sum(ranks) + 3) * 2**-24 * size.double()
    assert ((found - merge_reference(weight, terms)).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("factors", [torch.float32, torch.bfloat16])
def test_a_delta_of_rank_0_changes_no_bit(dtype: torch.dtype, factors: torch.dtype) -> None:
    weight = torch.tensor([[1.5, -0.0, 0.0, 1e-6]]).to(dtype)
    nothing = Term(torch.zeros(1, 0, dtype=factors), torch.zeros(0, 4, dtype=factors), 1.5)
    found = merge_(weight.clone(), [nothing])
    assert torch.equal(found.view(torch.uint8), weight.view(torch.uint8))


def test_weight_stored_transposed() -> None:
    weight, terms = make(2, dtype=torch.bfloat16, factors=torch.float32, shape=(48, 96))
    stored = weight.T.contiguous()
    merge_(stored, [term.transposed() for term in terms], workspace=Workspace(1 << 12))
    assert torch.equal(stored.T, merge_(weight.clone(), terms))


def test_rows_of_a_term_are_rows_of_the_result() -> None:
    weight, terms = make(2, dtype=torch.bfloat16, factors=torch.float32)
    whole = merge_(weight.clone(), terms)
    folded = fold(terms)
    pieces = [
        merge_(weight[start:stop].clone(), folded.rows(start, stop))
        for start, stop in [(0, 100), (100, 101), (101, 384)]
    ]
    steps = steps_apart(torch.cat(pieces), whole)
    # A BLAS may sum a tile of another height in another order: one step, rarely.
    assert steps.max() <= 1
    assert (steps != 0).double().mean() <= 1e-4


def test_the_scale_never_meets_bf16_factors() -> None:
    # 1/3 rounded to bfloat16 is off by 2^-9; folded into bf16 factors it would show in percents
    # of the elements.
    weight, [term] = make(1, dtype=torch.bfloat16, factors=torch.bfloat16, shape=(1024, 1024))
    terms = [term._replace(coefficient=40 / 3)]
    steps = steps_apart(
        merge_(weight.clone(), terms), merge_reference(weight, terms).to(torch.bfloat16)
    )
    assert (steps != 0).double().mean() <= 1e-4  # as in the first test


def test_in_place_and_nothing_else_is_written() -> None:
    weight, terms = make(2, dtype=torch.bfloat16, factors=torch.float32)
    kept = [(term.b.clone(), term.a.clone()) for term in terms]
    parameter = torch.nn.Parameter(weight.clone())
    address = parameter.data_ptr()
    assert merge_(parameter, terms) is parameter
    assert parameter.data_ptr() == address
    assert all(
        torch.equal(term.b, b) and torch.equal(term.a, a)
        for term, (b, a) in zip(terms, kept, strict=True)
    )


def test_out_of_another_dtype_is_rounded_once_and_leaves_the_weight() -> None:
    weight, terms = make(2, dtype=torch.float32, factors=torch.float32)
    kept = weight.clone()
    out = torch.empty(weight.shape, dtype=torch.bfloat16)
    merge_(weight, terms, out=out, workspace=Workspace(1 << 14))
    assert torch.equal(weight, kept)
    steps = steps_apart(out, merge_reference(weight, terms).to(torch.bfloat16))
    assert steps.max() <= 1
    assert (steps != 0).double().mean() <= 1e-4  # as in the first test


def test_memory_is_one_tile() -> None:
    workspace = Workspace(1 << 16)
    assert workspace.rows(1 << 10, torch.float32) == 16
    first = workspace.tile(16, 1 << 10, torch.float32, torch.device("cpu"))
    second = workspace.tile(3, 100, torch.float32, torch.device("cpu"))
    assert first.data_ptr() == second.data_ptr()
    assert first.isnan().all(), "torch.empty is poisoned in these tests"


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_reduced_matmul_precision_of_the_process_is_not_ours(precision: str) -> None:
    float32 = torch.float32  # the product is large, small ones are never reduced
    weight, terms = make(2, dtype=float32, factors=float32, shape=(1024, 1024), rank=256)
    expected = merge_(weight.clone(), terms)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        found = merge_(weight.clone(), terms)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found, expected)


def test_autocast_of_the_caller_is_not_ours() -> None:
    weight, terms = make(2, dtype=torch.float32, factors=torch.float32)
    expected = merge_(weight.clone(), terms)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = merge_(weight.clone(), terms)
    assert torch.equal(found, expected)


def test_refusals() -> None:
    weight, terms = make(1, dtype=torch.float32, factors=torch.float32)
    with pytest.raises(ValueError, match="one shape"):
        merge_(weight, [])
    with pytest.raises(ValueError, match="one shape"):
        merge_(weight, [terms[0], terms[0].transposed()])
    with pytest.raises(ValueError, match="weight"):
        merge_(weight[1:], terms)
    with pytest.raises(TypeError, match="int8"):
        merge_(weight.to(torch.int8), terms)


def test_folding_keeps_the_order_of_the_terms() -> None:
    _, terms = make(2, dtype=torch.float32, factors=torch.float32)
    folded = fold(terms)
    assert torch.equal(folded.a, torch.cat([term.a for term in terms]))
    assert torch.equal(folded.b[:, 16:], terms[1].b * terms[1].coefficient)
    delta = merge_reference(torch.zeros(folded.shape), terms)
    assert (delta.abs().amax(dim=1) <= folded.reach).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("columns", [512, 40, 33])
def test_where_weight_and_delta_cancel_the_result_is_still_a_neighbour(
    dtype: torch.dtype, columns: int
) -> None:
    # A weight that is almost the negative delta: what is left is far below a float32 rounding of
    # the delta, and only the float64 sum knows it.
    _, terms = make(4, dtype=dtype, factors=torch.float32, shape=(64, columns))
    delta = merge_reference(torch.zeros(64, columns), terms)
    weight = (-delta).to(dtype)
    terms = [term._replace(b=term.b.clone()) for term in terms]
    left = merge_reference(weight, terms)
    noise = torch.full((64, 1), 1e-9)
    terms.append(Term(noise, torch.randn(1, columns)))
    expected = merge_reference(weight, terms).to(dtype)
    assert left.abs().max() < 0.01
    assert steps_apart(merge_(weight.clone(), terms), expected).max() <= 1
