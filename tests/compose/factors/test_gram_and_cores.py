from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings

from factor_cases import dense, make, several, size
from rankloom.compose.factors.core import cores, spectrum
from rankloom.compose.factors.gram import gram
from rankloom.compose.factors.methods import combine
from rankloom.compose.factors.recompress import recompress
from rankloom.compose.factors.value import Factors, join
from rankloom.errors import AdapterError, IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Callable


@settings(max_examples=80)
@given(parts=several())
def test_gram_is_the_matrix_of_dense_inner_products(parts: list[Factors]) -> None:
    found = gram(parts)
    for i, one in enumerate(parts):
        for j, other in enumerate(parts):
            expected = float((dense(one) * dense(other)).sum())
            # Roundings of 2^-53 of the products, some hundred of them.
            bound = 1e-13 * size([one], [1]) * size([other], [1])
            assert abs(float(found[i, j]) - expected) <= bound
    assert torch.equal(found, found.T)
    assert (found.diagonal() >= 0).all()


def test_no_length_is_negative_where_a_delta_cancels_in_itself() -> None:
    for seed in range(40):  # half of these come out below zero by rounding
        one, other = make(9, 8, 3, seed), make(9, 8, 3, seed + 100)
        b = torch.cat([one.b, other.b, -one.b - other.b], 1)
        nothing = Factors(b, torch.cat([one.a, one.a, one.a]))
        assert 0 <= float(gram([nothing])) <= 1e-13 * size([nothing], [1]) ** 2


@settings(max_examples=80)
@given(parts=several())
def test_cores_are_the_deltas_in_other_coordinates(parts: list[Factors]) -> None:
    small = cores(parts)
    columns = sum(part.rank for part in parts)
    for core, part in zip(small, parts, strict=True):
        assert core.rank == part.rank
        assert max(core.shape) <= columns
        # Columns of b and rows of a keep all their lengths and angles; roundings as above.
        for mine, theirs in ((core.b, part.b.double()), (core.a.T, part.a.double().T)):
            scale = theirs.norm(dim=0).outer(theirs.norm(dim=0))
            assert ((mine.T @ mine - theirs.T @ theirs).abs() <= 1e-13 * scale).all()
    whole = [dense(part) for part in parts]
    for i, one in enumerate(small):
        for j, other in enumerate(small):
            bound = 1e-13 * size([parts[i]], [1]) * size([parts[j]], [1])
            expected = (whole[i] * whole[j]).sum()
            assert abs((dense(one) * dense(other)).sum() - expected) <= bound
    values = spectrum(small, [0.5] * len(parts))
    expected = torch.linalg.svdvals(0.5 * torch.stack(whole).sum(0))
    kept = min(len(values), len(expected))
    bound = 1e-13 * size(parts, [0.5] * len(parts))
    assert (values[:kept] - expected[:kept]).abs().max() <= bound
    assert max([0.0, *values[kept:], *expected[kept:]]) <= bound


def test_join_is_the_sum_and_keeps_every_column() -> None:
    parts = [make(7, 5, 2, 0), make(7, 5, 3, 1, dtype=torch.float32)]
    joined = join(parts, [0.5, -3])
    assert (joined.shape, joined.rank, joined.b.dtype) == ((7, 5), 5, torch.float64)
    assert torch.equal(joined.b[:, 2:], parts[1].b.double() * -3)
    assert torch.equal(joined.a[:2], parts[0].a)


@pytest.mark.parametrize(
    "work",
    [
        gram,
        cores,
        lambda parts: combine("exact", parts, [1, 2]),
        lambda parts: recompress(parts, rank=2),
        lambda parts: recompress(parts, rank="auto"),
    ],
    ids=["gram", "cores", "combine", "rank", "auto"],
)
def test_no_delta_is_ever_made(work: Callable[[list[Factors]], object]) -> None:
    # The delta itself would take 320 GB.
    work([make(200_000, 200_000, 2, seed, dtype=torch.float32) for seed in (1, 2)])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["a", "b"])
@pytest.mark.parametrize(
    "work",
    [
        gram,
        cores,
        lambda parts: recompress(parts, rank="auto"),
        lambda parts: combine("exact", parts, [1, 1]),
    ],
    ids=["gram", "cores", "recompress", "combine"],
)
def test_numbers_that_are_none_are_refused(
    work: Callable[[list[Factors]], object], where: str, bad: float
) -> None:
    parts = [make(9, 8, 3, seed) for seed in (1, 2)]
    getattr(parts[1], where)[2, 1] = bad
    with pytest.raises(AdapterError, match="NUM001"):
        work(parts)


def test_shapes_have_to_agree() -> None:
    with pytest.raises(IncompatibleError, match=r"BASE002 .*\(4, 5\), \(4, 6\)"):
        gram([make(4, 5, 2, 0), make(4, 6, 2, 0)])
    with pytest.raises(IncompatibleError, match=r"TEN003 factors \(4, 2\) and \(3, 5\)"):
        gram([Factors(torch.ones(4, 2), torch.ones(3, 5))])
    with pytest.raises(IncompatibleError, match="no factors"):
        gram([])


def test_factors_that_are_trained_are_read_only() -> None:
    part = make(6, 5, 2, 0)
    part.b.requires_grad_()
    assert not gram([part]).requires_grad
    assert not recompress([part], rank=1).factors.b.requires_grad
