"""The grouped kernel in Triton's interpreter, against the float64 formula."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import interpreted  # noqa: F401 - bfloat16 as on a GPU
from rankloom_kernels import BackendError, Term, fold, merge_, merge_many_, merge_reference
from rankloom_kernels.backends import choose
from rankloom_kernels.gpu.tables import MODULE_FIELDS, job, ready, table

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def make(
    shape: tuple[int, int],
    ranks: list[int],
    coefficients: list[float],
    *,
    dtype: torch.dtype = torch.bfloat16,
    factors: torch.dtype = torch.bfloat16,
    seed: int = 0,
) -> tuple[torch.Tensor, list[Term]]:
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(shape, generator=generator) * 0.02).to(dtype)
    terms = []
    for rank, coefficient in zip(ranks, coefficients, strict=True):
        b = torch.randn(shape[0], rank, generator=generator) * 0.005
        a = torch.randn(rank, shape[1], generator=generator) * 0.02
        terms.append(Term(b.to(factors), a.to(factors), coefficient))
    return weight, terms


def assert_rounded_once(found: torch.Tensor, weight: torch.Tensor, terms: list[Term]) -> None:
    """At most half a step from the sum, and what float32 sums of so many products may lose."""
    truth = merge_reference(weight, terms)
    size = weight.double().abs() + sum(
        abs(c) * (b.double().abs() @ a.double().abs()) for b, a, c in terms
    )
    roundings = sum(term.b.shape[1] for term in terms) + 3 + 2 * len(terms)
    step = torch.finfo(found.dtype).eps / 2 * truth.abs() + torch.finfo(found.dtype).tiny
    assert ((found.double() - truth).abs() <= step + roundings * 2**-24 * size).all()


@pytest.mark.parametrize("factors", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pair_of_dtypes(dtype: torch.dtype, factors: torch.dtype) -> None:
    weight, terms = make((130, 200), [16, 8], [0.7, -1.3], dtype=dtype, factors=factors)
    assert_rounded_once(merge_(weight.clone(), terms, backend="triton"), weight, terms)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_bf16_is_the_float64_result_rounded_once(count: int) -> None:
    coefficients = [0.5 + 0.3 * number for number in range(count)]
    weight, terms = make((256, 512), [16] * count, coefficients)
    truth = merge_reference(weight, terms).to(torch.bfloat16)
    found = merge_(weight.clone(), terms, backend="triton")
    steps = (found.view(torch.int16).int() - truth.view(torch.int16).int()).abs()
    assert steps.max() <= 1
    # A float32 sum errs by some 2^-24, and one sum in 2^16 is as near to a rounding boundary;
    # scaling the accumulator adds a rounding for each term.
    assert (steps != 0).double().mean() <= 1e-4


@settings(max_examples=60)
@given(
    rows=st.integers(0, 140),
    columns=st.integers(0, 140),
    ranks=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    coefficients=st.lists(st.floats(-8, 8), min_size=4, max_size=4),
    dtype=st.sampled_from(DTYPES),
    factors=st.sampled_from(DTYPES),
    seed=st.integers(0, 1 << 20),
)
def test_any_shape_rank_and_coefficient(
    rows: int,
    columns: int,
    ranks: list[int],
    coefficients: list[float],
    dtype: torch.dtype,
    factors: torch.dtype,
    seed: int,
) -> None:
    weight, terms = make(
        (rows, columns),
        ranks,
        coefficients[: len(ranks)],
        dtype=dtype,
        factors=factors,
        seed=seed,
    )
    assert_rounded_once(merge_(weight.clone(), terms, backend="triton"), weight, terms)


@pytest.mark.parametrize("rank", [1, 3, 17, 64, 128, 511, 512])
def test_any_rank(rank: int) -> None:
    weight, terms = make((33, 70), [rank], [1.5], dtype=torch.float32)
    assert_rounded_once(merge_(weight.clone(), terms, backend="triton"), weight, terms)


@pytest.mark.parametrize("coefficients", [[1e30, 1e-30], [1e-30, 0.5], [0.0, 2.0], [0.0, 0.0]])
def test_coefficients_far_apart(coefficients: list[float]) -> None:
    weight, terms = make((20, 30), [4, 4], coefficients, dtype=torch.float32)
    assert_rounded_once(merge_(weight.clone(), terms, backend="triton"), weight, terms)


def test_many_matrices_in_one_launch() -> None:
    shapes = [(64, 128), (1, 7), (65, 129), (0, 5), (200, 16), (128, 128), (3, 300)]
    cases = [
        make(shape, [8] * (number % 3), [1.0 + number] * (number % 3), seed=number)
        for number, shape in enumerate(shapes)
    ]
    found = [weight.clone() for weight, _ in cases]
    merge_many_(found, [terms for _, terms in cases], backend="triton")
    for result, (weight, terms) in zip(found, cases, strict=True):
        assert_rounded_once(result, weight, terms)


def test_many_of_mixed_dtypes_and_outputs_elsewhere() -> None:
    cases = [make((40, 50), [4], [2.0], dtype=dtype, seed=3) for dtype in DTYPES]
    outs = [torch.empty(40, 50, dtype=dtype) for dtype in reversed(DTYPES)]
    for backend in ("triton", "torch"):
        kept = [weight.clone() for weight, _ in cases]
        merge_many_([w for w, _ in cases], [t for _, t in cases], outs=outs, backend=backend)
        for (weight, terms), before, out in zip(cases, kept, outs, strict=True):
            assert torch.equal(weight, before)
            assert_rounded_once(out, weight, terms)


def test_backends_agree_on_no_terms_and_on_nothing() -> None:
    for backend in ("triton", "torch"):
        weight, _ = make((9, 9), [], [])
        out = torch.empty(9, 9, dtype=torch.bfloat16)
        merge_many_([weight], [[]], outs=[out], backend=backend)
        assert torch.equal(out, weight)
    merge_many_([], [])


def test_rows_with_a_stride_and_a_weight_stored_transposed() -> None:
    weight, terms = make((70, 90), [5], [1.0])
    truth = merge_(weight.clone(), terms, backend="triton")
    wide = torch.full((70, 128), 7.0, dtype=torch.bfloat16)
    wide[:, 3:93] = weight
    merge_(wide[:, 3:93], terms, backend="triton")
    assert torch.equal(wide[:, 3:93], truth)
    assert (wide[:, :3] == 7).all()
    assert (wide[:, 93:] == 7).all()
    stored = weight.T.contiguous()
    merge_(stored, [term.transposed() for term in terms], backend="triton")
    assert torch.equal(stored.T, truth)
    by_columns = weight.T.contiguous().T
    merge_(by_columns, terms, backend="triton")
    assert torch.equal(by_columns, truth)


def test_factors_that_are_folded() -> None:
    weight, terms = make((64, 64), [8, 8], [0.3, 3.0])
    assert_rounded_once(merge_(weight.clone(), fold(terms), backend="triton"), weight, terms)


def test_offsets_beyond_32_bits_stay_whole() -> None:
    # No such tensor is needed: a matrix of one row whose next would be 2^33 elements on.
    weight, terms = make((1, 24), [2], [1.0])
    far = weight.as_strided((1, 24), (1 << 33, 1))
    work = table([ready(job(far, far, terms), torch.bfloat16)], (64, 128))
    assert work.modules.dtype == torch.int64
    assert work.modules.shape == (1, MODULE_FIELDS)
    assert int(work.modules[0, 4]) == 1 << 33
    truth = merge_(weight.clone(), terms, backend="triton")
    assert torch.equal(merge_(far, terms, backend="triton"), truth)


def test_refusals() -> None:
    weight, terms = make((8, 12), [2], [1.0])
    with pytest.raises(ValueError, match="shapes"):
        merge_(weight[1:], terms, backend="triton")
    with pytest.raises(ValueError, match="neither rows nor columns"):
        merge_(torch.zeros(8, 24)[:, ::2], terms, backend="triton")
    with pytest.raises(ValueError, match="share memory"):
        merge_many_([weight, weight], [terms, terms], backend="triton")
    with pytest.raises(ValueError, match=r"shorter|longer"):
        merge_many_([weight], [], backend="triton")
    with pytest.raises(TypeError, match="int8"):
        merge_(weight.to(torch.int8), terms, backend="triton")
    with pytest.raises(BackendError, match="float64"):
        merge_(weight.double(), terms, backend="triton")
    with pytest.raises(BackendError, match="float64"):
        merge_(weight, terms, accumulate=torch.float64, backend="triton")
    with pytest.raises(BackendError, match="float64"):
        merge_(weight, fold(terms, torch.float64), backend="triton")
    with pytest.raises(ValueError, match=r"no backend .cuda."):
        merge_(weight, terms, backend="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tensors of one merge are on"):
        merge_(weight, [terms[0]._replace(b=terms[0].b.to("meta"))], backend="triton")


def test_why_a_better_backend_was_passed_over_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusals = {"triton": lambda: "it rains here", "torch": lambda: None}
    with caplog.at_level(logging.INFO, "rankloom_kernels"):
        assert choose(None, refusals) == "torch"
        assert choose(None, refusals) == "torch"
    assert [record.message for record in caplog.records] == ["triton is not used: it rains here"]
    with pytest.raises(BackendError, match="triton: it rains here") as caught:
        choose("triton", refusals)
    assert caught.value.reasons == {"triton": "it rains here"}


STOCK = """
import torch
from rankloom_kernels import BackendError, Term, merge_
weight, term = torch.zeros(8, 8, dtype=torch.bfloat16), Term(torch.ones(8, 2), torch.ones(2, 8))
try:
    merge_(weight, [term], backend="triton")
except BackendError as error:
    assert not weight.any()
    print(error)
"""


def in_a_process(code: str, **environment: str) -> str:
    root = Path(__file__).parents[2]
    paths = {"PYTHONPATH": str(root / "kernels")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | paths | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_compiler_that_computes_wrong_is_not_trusted() -> None:
    # The interpreter as it is shipped cannot round to bfloat16: exactly such a compiler.
    said = in_a_process(STOCK, TRITON_INTERPRET="1")
    assert "of a trial on cpu are wrong (torch.bfloat16, torch.bfloat16)" in said


def test_triton_is_not_imported_unless_it_is_needed() -> None:
    code = """
import sys, torch
sys.modules.pop("triton", None)
before = {name for name in sys.modules if name.startswith("triton")}
from rankloom_kernels import Term, merge_
merge_(torch.zeros(4, 4), [Term(torch.ones(4, 1), torch.ones(1, 4))])
print(sorted(name for name in sys.modules if name.startswith("triton") and name not in before))
"""
    assert in_a_process(code).strip() == "[]"
    refused = """
import torch
from rankloom_kernels import BackendError, Term, merge_
try:
    merge_(torch.zeros(4, 4), [Term(torch.ones(4, 1), torch.ones(1, 4))], backend="triton")
except BackendError as error:
    print(error)
"""
    assert "its kernels run on cuda" in in_a_process(refused, TRITON_INTERPRET="0")
