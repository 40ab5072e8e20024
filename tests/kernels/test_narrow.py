"""Products of bfloat16 matrices: as accurate as float32, on processors with and without them."""

from __future__ import annotations

import pytest
import torch

from rankloom_kernels import Term, Workspace, fold, merge_reference, narrow, refine
from rankloom_kernels.lowrank import merge_

SHAPE, RANK = (1024, 1024), 16


@pytest.fixture(autouse=True, params=[3, 0], ids=["bfloat16 products", "portable"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Both ways on any processor: torch emulates the products where there are no instructions."""
    most: int = request.param
    monkeypatch.setattr(narrow, "most_products", lambda: most)
    return most


def terms_of(count: int, kind: str, size: float) -> list[Term]:
    generator = torch.Generator().manual_seed(count)
    dtype = getattr(torch, kind) if kind in {"float32", "float16"} else torch.bfloat16
    found = []
    for number in range(count):
        b = torch.randn(SHAPE[0], RANK, generator=generator) * size
        a = torch.randn(RANK, SHAPE[1], generator=generator) * 0.02
        coefficient = 2.0 if kind != "unequal" else 1.4 + 0.6 * number
        found.append(Term(b.to(dtype), a.to(dtype), coefficient))
    return found


def weights() -> torch.Tensor:
    generator = torch.Generator().manual_seed(99)
    return (torch.randn(SHAPE, generator=generator) * 0.02).bfloat16()


@pytest.mark.parametrize("size", [0.0005, 0.004, 0.03, 1.0])  # up to deltas 400 times the weight
@pytest.mark.parametrize("kind", ["one scale", "unequal", "float32"])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_no_more_than_one_sum_in_ten_thousand_is_not_the_rounded_one(
    count: int, kind: str, size: float
) -> None:
    weight, terms = weights(), terms_of(count, kind, size)
    tiles = Workspace(256 * 2 * SHAPE[1])  # sums that are formed again come from several
    found = merge_(weight.clone(), terms, workspace=tiles)
    off = found != merge_reference(weight, terms).bfloat16()
    # The promise. Measured: at most 0.7e-4, which 1e6 elements show within 0.1e-4.
    assert off.double().mean() <= 1e-4


def test_one_row_of_giants_lets_no_other_be_wrong() -> None:
    weight, terms = weights(), terms_of(1, "float32", 0.03)
    weight[0] *= 200
    off = merge_(weight.clone(), terms) != merge_reference(weight, terms).bfloat16()
    assert off.double().mean() <= 1e-4


def test_the_smallest_numbers_count_if_the_scale_is_a_giant() -> None:
    weight = torch.ones(64, 256).bfloat16()
    b = torch.full((64, 4), 2.0**-130).bfloat16()
    a = torch.full((4, 256), 2.0**30).bfloat16()
    assert merge_(weight, [Term(b, a, 2.0**100)]).unique().tolist() == [5.0]


@pytest.mark.parametrize("count", [1, 2])
def test_float16_factors_may_have_rows_of_zeros(count: int) -> None:
    weight, terms = weights(), terms_of(count, "float16", 0.0005)
    for term in terms:
        term.b[3] = 0
    parts = fold(terms, for_bfloat16=True).narrow
    assert parts is None or parts.error <= 2**-15
    found, exact = merge_(weight.clone(), terms), merge_reference(weight, terms).bfloat16()
    assert torch.equal(found[3], weight[3])
    assert (found != exact).double().mean() <= 1e-4


@pytest.mark.parametrize("kind", ["unequal", "float32"])
def test_what_is_left_where_weight_and_delta_cancel_is_a_neighbour(kind: str) -> None:
    weight, terms = weights(), terms_of(2, kind, 0.0005)
    delta = merge_reference(torch.zeros(SHAPE), terms)
    weight.view(-1)[::50] = -delta.bfloat16().view(-1)[::50]  # the others leave it to the products
    expected = merge_reference(weight, terms).bfloat16().double()
    found = merge_(weight.clone(), terms).double()
    # One step of a bfloat16 number is at most 2⁻⁷ of it; sums of 2⁻¹⁰ in float64 err by 2⁻⁶⁰.
    step = 2**-7 * torch.maximum(found.abs(), expected.abs()) + 2**-60
    wrong = (found - expected).abs() > step
    assert not wrong[expected > 0].any()
    assert not wrong[expected < 0].any()


@pytest.mark.parametrize("kind", ["one scale", "unequal", "float32"])
def test_where_rows_lie_changes_no_bit(kind: str) -> None:
    weight, terms = weights(), terms_of(2, kind, 0.0005)
    workspace = Workspace(256 * 2 * SHAPE[1])  # 256 rows: other heights may be summed otherwise
    whole = merge_(weight.clone(), terms, workspace=workspace)
    folded = fold(terms, for_bfloat16=True)
    out = torch.empty_like(weight)
    for start in range(0, len(weight), 256):
        rows = slice(start, start + 256)
        merge_(weight[rows], folded.rows(start, start + 256), out=out[rows], workspace=workspace)
    assert torch.equal(out, whole)


def test_a_zero_delta_keeps_every_bit_of_the_smallest_numbers() -> None:
    bits = torch.arange(0x7F80, dtype=torch.int16)  # every finite magnitude, subnormal ones too
    weight = bits.view(torch.bfloat16).repeat(8, 1)
    zero = Term(torch.zeros(8, 4), torch.full((4, weight.shape[1]), 0.3), 1.0)
    assert torch.equal(merge_(weight.clone(), [zero]).view(torch.int16), weight.view(torch.int16))


def test_giants_and_overflow_are_left_to_float32() -> None:
    terms = [Term(torch.full((4, 1), 1e-30), torch.full((1, 8), 1e30), 1.0)]
    weight = torch.ones(4, 8, dtype=torch.bfloat16)
    assert fold(terms, for_bfloat16=True).narrow is None
    assert torch.equal(merge_(weight, terms), torch.full((4, 8), 2.0).bfloat16())


@pytest.mark.parametrize("most", [2, 3])
def test_only_what_is_not_bfloat16_adds_to_the_rank(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(narrow, "most_products", lambda: most)
    exact, [inexact] = terms_of(2, "one scale", 0.01), terms_of(1, "float32", 0.01)
    cases = {
        "one scale": exact,
        "a second scale": [exact[0], exact[1]._replace(coefficient=2.8)],
        "twice the scale": [exact[0], exact[1]._replace(coefficient=4.0)],
        "nothing of one": [exact[0]._replace(coefficient=0.0), exact[1]],
        "float32": [inexact],
        "float32 and bfloat16": [exact[0], inexact],
    }
    found = {}
    for name, terms in cases.items():
        parts = fold(terms, for_bfloat16=True).narrow
        found[name] = parts and parts.b.shape[1] // RANK
        if parts:  # float32 sums of 96 products err by 2⁻²⁴ of their sizes, and rests by 2⁻¹⁶
            delta = parts.scale * (parts.b.double() @ parts.a.double())
            wanted = merge_reference(torch.zeros(SHAPE), terms)
            assert (delta - wanted).abs().max() <= 2**-15 * wanted.abs().max()
    alike = {"one scale": 2, "a second scale": 3, "twice the scale": 2, "nothing of one": 2}
    rest = {2: {"float32": None, "float32 and bfloat16": 4}}
    assert found == alike | rest.get(most, {"float32": 3, "float32 and bfloat16": 4})


def test_a_ratio_of_scales_beyond_float32_is_left_to_float32() -> None:
    terms = terms_of(2, "one scale", 0.01)
    terms[1].b[0] = 0
    terms = [terms[0]._replace(coefficient=1e-30), terms[1]._replace(coefficient=1e15)]
    terms = [terms[0], terms[0], terms[1]]
    assert fold(terms, for_bfloat16=True).narrow is None


@pytest.mark.parametrize("rows", [1, 100, 192])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_doubtful_is_told_by_each_row_itself(dtype: torch.dtype, rows: int) -> None:
    """One row of giants made its whole tile doubtful, which took time and memory for nothing."""
    generator = torch.Generator().manual_seed(rows)
    b = torch.randn(rows, RANK, generator=generator) * 0.001
    b[rows // 2] *= 1e7
    delta = fold([Term(b, torch.randn(RANK, 512, generator=generator) * 0.02)])
    total = (torch.randn(rows, 512, generator=generator) * 0.02).to(dtype)
    precision = torch.finfo(torch.bfloat16).eps
    error = 2**-24 * (2 + RANK**0.5)
    limits = (delta.reach * (error / precision * 2)).clip(min=2 * torch.finfo(dtype).tiny)
    expected = (total.float().abs() < limits[:, None]).flatten().nonzero()[:, 0]
    if dtype == torch.bfloat16:  # compared by their bits, which a limit's are cut down to
        expected = (total.abs() < _cut(limits)[:, None]).flatten().nonzero()[:, 0]
    found = refine.cancelled(total, delta, precision)
    assert found.sort().values.tolist() == expected.tolist()
    assert len(found) < 2 * 512, "the giants' row, and hardly any other"


def _cut(limits: torch.Tensor) -> torch.Tensor:
    return (limits.view(torch.int32) >> 16 << 16).view(torch.float32).bfloat16()


@pytest.mark.parametrize("coefficient", [1.0, 2.0])
def test_factors_that_need_no_preparation_are_not_copied(coefficient: float, products: int) -> None:
    b, a = torch.ones(64, RANK).bfloat16(), torch.ones(RANK, 64).bfloat16()
    delta = fold([Term(b, a, coefficient)], for_bfloat16=True)
    assert delta.raw_b.data_ptr() == b.data_ptr()
    assert b.unique().tolist() == [1.0]
    assert (delta.narrow is not None) == bool(products)
    if delta.narrow:
        assert delta.narrow.b.data_ptr() == b.data_ptr()
        assert delta.narrow.a.data_ptr() == a.data_ptr()
