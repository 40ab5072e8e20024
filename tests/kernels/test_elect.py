"""Elections and thresholds on both backends, against float64 formulas over whole deltas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import interpreted  # noqa: F401 - bfloat16 as on a GPU
from rankloom_kernels import (
    Election,
    Keep,
    Term,
    elect_merge_,
    elect_reference,
    thresholds,
)
from rankloom_kernels.gpu.count import count
from rankloom_kernels.gpu.deltas import deltas
from rankloom_kernels.masks import stream_key
from rankloom_kernels.separate import delta_rows
from rankloom_kernels.thresholds import Counts, kth_largest

if TYPE_CHECKING:
    from rankloom_kernels import Backend

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
BACKENDS: list[Backend] = ["torch", "triton"]


def make(
    shape: tuple[int, int], ranks: list[int], factors: torch.dtype, seed: int
) -> tuple[torch.Tensor, list[Term]]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator) * 0.02
    terms = [
        Term(
            (torch.randn(shape[0], rank, generator=generator) * 0.1).to(factors),
            (torch.randn(rank, shape[1], generator=generator) * 0.1).to(factors),
            1.0 + index / 3,
        )
        for index, rank in enumerate(ranks)
    ]
    return weight, terms


def undecided(terms: list[Term], keep: Keep, election: Election) -> torch.Tensor:
    """Elements of which float32 cannot tell whether they stay, or who wins."""
    stack = torch.stack([c * (b.double() @ a.double()) for b, a, c in terms])
    error = 1e-5 * stack.abs().amax()
    found = torch.zeros(stack.shape[1:], dtype=torch.bool)
    if not keep.drops:
        bounds = stack.new_tensor(keep.bounds)[:, None, None]
        found |= ((stack.abs() - bounds).abs() <= error).any(0)
    found |= (stack.abs() <= error).any(0)
    votes = stack * stack.new_tensor(election.weights)[:, None, None]
    found |= (votes.sum(0).abs() <= error) | (stack.sum(0).abs() <= error)
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 50),
    columns=st.integers(1, 90),
    ranks=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.25, 2), min_size=4, max_size=4),
    bounds=st.lists(st.sampled_from([0.01, 0.02, 0.5, 1.0]), min_size=4, max_size=4),
    is_random=st.booleans(),
    election=st.sampled_from(["weighted", "unweighted", "none"]),
    vote=st.sampled_from(["total", "count"]),
    divide=st.sampled_from(["weights", "count", "none"]),
    dtype=st.sampled_from(DTYPES),
    factors=st.sampled_from(DTYPES),
    start=st.sampled_from([0, 1, 1000, 1 << 22]),
    seed=st.integers(0, 1 << 20),
)
def test_any_election(
    backend: Backend,
    rows: int,
    columns: int,
    ranks: list[int],
    weights: list[float],
    bounds: list[float],
    is_random: bool,
    election: str,
    vote: str,
    divide: str,
    dtype: torch.dtype,
    factors: torch.dtype,
    start: int,
    seed: int,
) -> None:
    weight, terms = make((rows, columns), ranks, factors, seed)
    weight = weight.to(dtype)
    count = len(terms)
    keys = tuple(stream_key(seed, str(n), "w") for n in range(count)) if is_random else ()
    keep = Keep(tuple(bounds[:count]), keys)
    rule = Election(
        tuple(weights[:count]),
        election,  # type: ignore[arg-type]
        vote,  # type: ignore[arg-type]
        divide if election != "none" else "none",  # type: ignore[arg-type]
        0.75,
    )
    truth = elect_reference(weight, terms, keep, rule, start=start)
    out = torch.full(weight.shape, torch.nan, dtype=dtype)
    elect_merge_(weight, terms, keep, rule, start=start, out=out, backend=backend)
    # Products of at most 80 pairs, divided by a rate of at least 0.01, in float32.
    size = truth.abs() + sum(abs(c) * (b.double().abs() @ a.double().abs()) for b, a, c in terms)
    lost = 2**-24 * 100 * size * (1 / min(bounds) if is_random else 4)
    step = torch.finfo(dtype).eps / 2 * truth.abs() + torch.finfo(dtype).tiny
    wrong = (out.double() - truth).abs() > step + lost
    assert not (wrong & ~undecided(terms, keep, rule)).any()


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 60),
    columns=st.integers(1, 100),
    rank=st.integers(1, 20),
    density=st.floats(1e-4, 1),
    factors=st.sampled_from(DTYPES),
    seed=st.integers(0, 1 << 20),
)
def test_thresholds_keep_the_share(
    backend: Backend,
    rows: int,
    columns: int,
    rank: int,
    density: float,
    factors: torch.dtype,
    seed: int,
) -> None:
    _, terms = make((rows, columns), [rank], factors, seed)
    [bound] = thresholds(terms, [density], backend=backend)
    # What is merged into zeros is what stays of the delta.
    kept = torch.full((rows, columns), torch.nan)
    everything = torch.full((rows, columns), torch.nan)
    rule = Election((1.0,), "none", "total", "none")
    zeros = torch.zeros(rows, columns)
    elect_merge_(zeros, terms, Keep((bound,)), rule, out=kept, backend=backend)
    elect_merge_(zeros, terms, Keep((0.0,)), rule, out=everything, backend=backend)
    wanted = max(1, int(density * (rows * columns)))
    size = everything.abs()
    if wanted < size.numel():
        assert int((size >= bound).sum()) >= wanted > int((size > bound).sum())
    else:
        assert bound == 0
    assert torch.equal(kept, torch.where(size >= bound, everything, 0.0))


@given(values=st.lists(st.floats(0, width=32), min_size=1, max_size=50), data=st.data())
def test_counting_finds_what_sorting_does(values: list[float], data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, len(values)))
    low = data.draw(st.integers(0, (1 << 31) - 1))
    high = data.draw(st.integers(low + 1, 1 << 31))
    bits = torch.tensor(values).view(torch.int32).long()

    def counts(first: int, shift: int) -> Counts:
        places = (bits - first) >> shift
        inside = places[(places >= 0) & (places < 1024)]
        return Counts(int((places >= 1024).sum()), torch.bincount(inside, minlength=1024))

    expected = sorted(torch.tensor(values).tolist(), reverse=True)[rank - 1]
    assert kth_largest(counts, rank, (low, high)) == expected


@pytest.mark.parametrize("shift", [0, 10, 13, 21])
def test_the_kernel_counts_what_lies_where(shift: int) -> None:
    # Small whole numbers: every way to multiply gives the same magnitudes, many at ends of bins.
    generator = torch.Generator().manual_seed(shift)
    b = torch.randint(-3, 4, (70, 3), generator=generator).float()
    a = torch.randint(-3, 4, (3, 130), generator=generator).float()
    bits = (b @ a).abs().view(torch.int32).long().flatten()
    found = deltas([Term(b, a)])
    for low in bits.unique().tolist():
        for first in (low, max(0, low - (1024 << shift))):
            places = (bits - first) >> shift
            inside = places[(places >= 0) & (places < 1024)]
            expected = torch.bincount(inside, minlength=1024)
            counts = count(found, 0, 1024, first, shift)
            assert torch.equal(counts[:-1], expected)
            assert int(counts[-1]) == int((places >= 1024).sum())


def test_counts_of_too_few_end() -> None:
    with pytest.raises(ValueError, match="no 5-th"):
        kth_largest(lambda *_: Counts(0, torch.ones(1024, dtype=torch.int64) * 0), 5)


def test_a_delta_of_zeros_and_of_equal_elements() -> None:
    for backend in BACKENDS:
        ones, zeros = torch.ones(40, 1), torch.zeros(40, 1)
        assert thresholds([Term(ones, ones.T)], [0.5], backend=backend) == (1.0,)
        assert thresholds([Term(zeros, ones.T)], [0.5], backend=backend) == (0.0,)
        assert thresholds([], [], backend=backend) == ()


def test_backends_drop_the_same_elements() -> None:
    weight, terms = make((70, 130), [4, 4], torch.float32, 0)
    keep = Keep((0.3, 0.6), (-5, 1 << 62))
    rule = Election((1.0, 1.0), "none", "total", "none")
    zeros = torch.zeros_like(weight)
    one, other = (
        elect_merge_(zeros.clone(), terms, keep, rule, start=12345, backend=backend)
        for backend in BACKENDS
    )
    assert torch.equal(one == 0, other == 0)
    assert 0.2 < float((one == 0).double().mean()) < 0.36  # 0.7 times 0.4


def test_mixed_factors_and_large_scales_are_the_same_delta_in_both_kernels() -> None:
    _, terms = make((40, 72), [8, 8], torch.bfloat16, 1)
    terms[1] = Term(terms[1].b.float(), terms[1].a, 1e6)
    bounds = thresholds(terms, [0.1, 0.1], backend="triton")
    rule = Election((1.0, 0.0), "none", "total", "none")
    out = torch.zeros(40, 72)
    elect_merge_(out, terms, Keep(bounds), rule, backend="triton")
    assert int((out != 0).sum()) == int(0.1 * 40 * 72)


def test_rows_are_those_of_a_term() -> None:
    _, [term] = make((9, 5), [3], torch.float32, 2)
    whole = term.coefficient * (term.b @ term.a)
    assert torch.allclose(delta_rows(term, 2, 7), whole[2:7], rtol=1e-5, atol=1e-7)


def test_refusals() -> None:
    weight, terms = make((8, 12), [2, 2], torch.float32, 0)
    keep, rule = Keep((0.1, 0.1)), Election((1.0, 1.0))
    with pytest.raises(ValueError, match="one shape"):
        elect_merge_(weight[1:], terms, keep, rule)
    with pytest.raises(ValueError, match="numbers differ"):
        elect_merge_(weight, terms[:1], keep, rule)
    with pytest.raises(TypeError, match="float64"):
        elect_merge_(weight.double(), terms, keep, rule)
    with pytest.raises(ValueError, match="keys"):
        Keep((0.1, 0.2), (1,))
    with pytest.raises(ValueError, match="negative"):
        Election((1.0, -1.0))
    with pytest.raises(ValueError, match="nothing is elected"):
        Election((1.0,), "none")
    with pytest.raises(ValueError, match="no share"):
        thresholds(terms, [0.0, 0.5])
    with pytest.raises(ValueError, match="probability"):
        elect_merge_(weight, terms, Keep((2.0, 0.1), (1, 2)), rule)
