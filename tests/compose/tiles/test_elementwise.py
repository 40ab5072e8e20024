"""Tile methods against dense float64 formulas and against PEFT's own functions."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils import merge_utils

from elementwise_truth import (
    Truth,
    add,
    assert_equal,
    crumbs,
    dense,
    elect,
    random_parts,
    reach,
    trim,
)
from rankloom.compose.factors.value import Factors
from rankloom.compose.tiles.methods import METHODS, RANDOM, combine
from rankloom.errors import AdapterError, IncompatibleError, RefError
from splitmix import mask

if TYPE_CHECKING:
    from rankloom.compose.tiles.elementwise import Elementwise

SHAPE = (310, 257)  # neither is a multiple of anything
RANKS = (16, 8, 3)
WEIGHTS = (1.0, 0.5, 0.75)
KEYS = (3, -4, 2**62)
OPTIONS = [
    {"sign_election": election, "vote": vote, "divide_by": divide}
    for election, vote, divide in itertools.product(
        ("weighted", "unweighted"), ("total", "count"), ("weights", "count", "none")
    )
]


def all_rows(result: Elementwise) -> torch.Tensor:
    return result.rows(0, result.shape[0])


@pytest.fixture(scope="module")
def parts() -> list[Factors]:
    return random_parts(SHAPE, RANKS, seed=1)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o.values()))
def test_ties(parts: list[Factors], options: dict[str, str]) -> None:
    densities = [0.2, 0.35, 0.5]
    found = all_rows(
        combine("ties", parts, WEIGHTS, {"density": densities, "lambda": 0.7, **options})
    )
    kept = trim(dense(parts), densities)
    truth = elect(kept.values, WEIGHTS, lambda_=0.7, **options)
    scale = np.maximum(np.abs(truth.values), 0.05 * reach(parts))
    assert_equal(found, Truth(truth.values, truth.unsure | kept.unsure), scale)


def test_ties_agrees_relatively_where_one_adapter_was_trimmed() -> None:
    # What is kept of one delta is large, so no element is small beside what it is a sum of.
    [part] = random_parts(SHAPE, [16], seed=2)
    found = all_rows(combine("ties", [part], [1], {"density": 0.2}))
    truth = trim(dense([part]), [0.2])
    assert_equal(found, Truth(truth.values[0], truth.unsure), np.abs(dense([part])[0]))


@pytest.mark.parametrize("vote", ["total", "count"])
def test_ties_with_a_negative_weight(parts: list[Factors], vote: str) -> None:
    weights = (1.0, -0.5, 0.75)
    for election in ("weighted", "unweighted"):
        options = {"sign_election": election, "vote": vote, "divide_by": "count"}
        found = all_rows(combine("ties", parts, weights, {"density": 0.4, **options}))
        kept = trim(dense(parts), [0.4] * 3)
        truth = elect(kept.values, weights, **options)
        assert_equal(found, Truth(truth.values, truth.unsure | kept.unsure), reach(parts))


@pytest.mark.parametrize(("vote", "method"), [("total", "total"), ("count", "frequency")])
def test_ties_of_peft(parts: list[Factors], vote: str, method: str) -> None:
    found = all_rows(
        combine(
            "ties",
            parts,
            WEIGHTS,
            {"density": 0.3, "sign_election": "unweighted", "vote": vote, "divide_by": "count"},
        )
    )
    deltas = [torch.from_numpy(delta) for delta in dense(parts)]
    peft = merge_utils.ties(deltas, torch.tensor(WEIGHTS).double(), 0.3, method)
    unsure = trim(dense(parts), [0.3] * 3).unsure
    unsure |= elect(trim(dense(parts), [0.3] * 3).values, WEIGHTS, vote=vote).unsure
    assert_equal(found, Truth(peft.numpy(), unsure), reach(parts))


def test_magnitude_prune_of_peft(parts: list[Factors]) -> None:
    found = all_rows(combine("magnitude_prune", parts, WEIGHTS, {"density": 0.3}))
    deltas = [torch.from_numpy(delta) for delta in dense(parts)]
    peft = merge_utils.magnitude_prune(deltas, torch.tensor(WEIGHTS).double(), 0.3)
    assert_equal(found, Truth(peft.numpy(), trim(dense(parts), [0.3] * 3).unsure), reach(parts))


@pytest.mark.parametrize(("density", "gamma"), [(0.3, 0.05), (0.9, 0.2), (1, 0.1), (0.5, 0)])
def test_breadcrumbs(parts: list[Factors], density: float, gamma: float) -> None:
    given = {"density": density, "gamma": gamma}
    kept = crumbs(dense(parts), density, gamma)
    found = all_rows(combine("breadcrumbs", parts, WEIGHTS, given))
    assert_equal(found, Truth(add(kept.values, WEIGHTS), kept.unsure), reach(parts))
    found = all_rows(combine("breadcrumbs_ties", parts, WEIGHTS, given))
    truth = elect(kept.values, WEIGHTS, divide_by="none")
    assert_equal(found, Truth(truth.values, truth.unsure | kept.unsure), reach(parts))


def dropped(parts: list[Factors], rate: float) -> np.ndarray:
    masks = np.stack([mask(key, SHAPE, rate) for key in KEYS])
    return np.where(masks, dense(parts) / rate, 0)


@pytest.mark.parametrize("rate", [0.1, 0.7, 1])
def test_dare(parts: list[Factors], rate: float) -> None:
    given = {"density": rate, "keys": KEYS}
    kept = dropped(parts, rate)
    sure = np.zeros(SHAPE, dtype=bool)
    found = all_rows(combine("dare_linear", parts, WEIGHTS, given))
    assert_equal(found, Truth(add(kept, WEIGHTS), sure), reach(parts) / rate)
    options = {"sign_election": "unweighted", "divide_by": "count"}
    found = all_rows(combine("dare_ties", parts, WEIGHTS, given | options))
    truth = elect(kept, WEIGHTS, **options)
    assert_equal(found, truth, reach(parts) / rate, unsure=1e-4)
    found = all_rows(combine("dare_ties", parts, WEIGHTS, given))
    truth = elect(kept, WEIGHTS, divide_by="none")
    assert_equal(found, truth, reach(parts) / rate, unsure=1e-4)


def test_dare_divides_by_the_density_itself(parts: list[Factors]) -> None:
    whole = all_rows(combine("dare_linear", parts[:1], [1], {"density": 1, "keys": [1]}))
    for rate in (0.3, 0.9):
        found = all_rows(combine("dare_linear", parts[:1], [1], {"density": rate, "keys": [1]}))
        stays = torch.from_numpy(mask(1, SHAPE, rate))
        assert torch.equal(found != 0, stays & (whole != 0))
        # One step of float32: neither the mean nor the norm of this tensor has a part in it.
        exact = whole[stays].double() / rate
        assert float(((found[stays] - exact) / exact).abs().max()) <= 2**-23


def della_rates(delta: np.ndarray, density: float, epsilon: float) -> np.ndarray:
    rank = np.abs(delta).argsort(axis=1).argsort(axis=1)
    return density - epsilon + 2 * epsilon * rank / (delta.shape[1] - 1)


@pytest.mark.parametrize(("density", "epsilon"), [(0.5, 0.15), (0.3, 0.0), (0.6, 0.4)])
def test_della(parts: list[Factors], density: float, epsilon: float) -> None:
    given = {"density": density, "epsilon": epsilon, "keys": KEYS}
    deltas = dense(parts)
    rates = np.stack([della_rates(delta, density, epsilon) for delta in deltas])
    masks = np.stack([mask(key, SHAPE, rate) for key, rate in zip(KEYS, rates, strict=True)])
    # Neighbours in rank that float32 cannot tell apart swap their probabilities.
    ordered = np.sort(np.abs(deltas), axis=2)
    gaps = np.diff(ordered, axis=2) <= 1e-6 * ordered[:, :, 1:] + 1e-9
    close = np.zeros_like(masks)
    for number, delta in enumerate(deltas):
        order = np.abs(delta).argsort(axis=1)
        twin = np.pad(gaps[number], ((0, 0), (1, 0))) | np.pad(gaps[number], ((0, 0), (0, 1)))
        np.put_along_axis(close[number], order, twin, axis=1)
    kept = np.where(masks, deltas / rates, 0)
    unsure = close.any(0)
    found = all_rows(combine("della_linear", parts, WEIGHTS, given))
    assert_equal(found, Truth(add(kept, WEIGHTS), unsure), reach(parts) / rates.min(), unsure=0.01)
    found = all_rows(combine("della", parts, WEIGHTS, given))
    truth = elect(kept, WEIGHTS)
    both = Truth(truth.values, truth.unsure | unsure)
    assert_equal(found, both, reach(parts) / rates.min(), unsure=0.01)


def test_della_of_rows_of_one_element() -> None:
    part = Factors(torch.ones(4000, 1), torch.ones(1, 1))
    given = {"density": 0.5, "epsilon": 0.3, "keys": [9]}
    found = all_rows(combine("della_linear", [part], [1], given))
    assert torch.equal(found[:, 0], torch.from_numpy(mask(9, (4000,), 0.5)) * 2.0)


def test_della_gives_equal_magnitudes_the_order_of_their_columns() -> None:
    part = Factors(torch.ones(3, 1), torch.tensor([[1.0, -1, 1, -1, 1, 1]]))
    given = {"density": 0.5, "epsilon": 0.4, "keys": [9]}
    found = all_rows(combine("della_linear", [part], [1], given))
    rates = np.broadcast_to(0.1 + 0.8 * np.arange(6) / 5, (3, 6))
    expected = np.where(mask(9, (3, 6), rates), part.a.numpy() / rates, 0)
    assert np.allclose(found.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.6, 1])
def test_sce(parts: list[Factors], share: float) -> None:
    deltas = dense(parts)
    variance = deltas.var(axis=0)
    limit = kth_largest(variance, int(share * np.count_nonzero(variance)))
    selected = np.where(variance >= limit, deltas, 0)
    energies = (selected**2).sum((1, 2))
    truth = elect(selected, energies / energies.sum(), sign_election="unweighted")
    # A variance is a difference of squares, known a digit less well than what it is made of.
    unsure = (np.abs(variance - limit) <= 1e-5 * limit) & (share < 1)
    found = all_rows(combine("sce", parts, [1, 1, 1], {"select_topk": share}))
    assert_equal(found, Truth(truth.values, truth.unsure | unsure), reach(parts), unsure=1e-4)


def kth_largest(values: np.ndarray, count: int) -> float:
    return float(np.sort(values, axis=None)[-count])


# ── Ties at thresholds: factors of small whole numbers, so float32 is exact. ──────────────────

WHOLE = st.integers(-2, 2)


@st.composite
def whole_parts(draw: st.DrawFn) -> list[Factors]:
    out, into = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    count = draw(st.integers(1, 4))

    def matrix(rows: int, columns: int) -> torch.Tensor:
        values = draw(st.lists(WHOLE, min_size=rows * columns, max_size=rows * columns))
        return torch.tensor(values, dtype=torch.float64).view(rows, columns)

    ranks = [draw(st.integers(0, 2)) for _ in range(count)]
    return [Factors(matrix(out, rank), matrix(rank, into)) for rank in ranks]


@settings(max_examples=60)
@given(
    parts=whole_parts(),
    density=st.floats(0.01, 1),
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, -1.0]), min_size=4, max_size=4),
    options=st.sampled_from(OPTIONS),
)
def test_ties_with_equal_elements(
    parts: list[Factors], density: float, weights: list[float], options: dict[str, str]
) -> None:
    given = weights[: len(parts)]
    if options["divide_by"] == "weights":
        given = [abs(weight) for weight in given]
    found = all_rows(combine("ties", parts, given, {"density": density, **options}))
    truth = elect(trim(dense(parts), [density] * len(parts)).values, given, **options)
    assert np.allclose(found.numpy(), truth.values, rtol=3e-7, atol=0)


@settings(max_examples=60)
@given(parts=whole_parts(), density=st.floats(0.2, 1), gamma=st.floats(0, 0.9))
def test_breadcrumbs_with_equal_elements(
    parts: list[Factors], density: float, gamma: float
) -> None:
    size = parts[0].shape[0] * parts[0].shape[1]
    if int(density * size) == 0:
        return
    weights = [1.0] * len(parts)
    found = all_rows(combine("breadcrumbs", parts, weights, {"density": density, "gamma": gamma}))
    truth = add(crumbs(dense(parts), density, gamma).values, weights)
    assert np.array_equal(found.numpy(), truth)


# ── One result, however it is asked for. ──────────────────────────────────────────────────────

PARAMETERS = {
    "breadcrumbs": {"density": 0.3},
    "breadcrumbs_ties": {"density": 0.3},
    "dare_linear": {"density": 0.3, "keys": (1, 2, 3)},
    "dare_ties": {"density": 0.3, "keys": (1, 2, 3)},
    "della": {"density": 0.5, "keys": (1, 2, 3)},
    "della_linear": {"density": 0.5, "keys": (1, 2, 3)},
    "magnitude_prune": {"density": 0.3},
    "sce": {"select_topk": 0.3},
    "ties": {"density": 0.3},
}


def test_every_method_is_tested() -> None:
    assert PARAMETERS.keys() == METHODS.keys()
    assert {name for name, given in PARAMETERS.items() if "keys" in given} == RANDOM


# Odd sizes leave the last elements of every vector instruction over, and three threads cut rows
# where two do not.
@pytest.mark.parametrize("shape", [(35, 4097), (131, 1501)])
@pytest.mark.parametrize("method", METHODS)
def test_rows_do_not_depend_on_tiles_or_threads(method: str, shape: tuple[int, int]) -> None:
    parts = random_parts(shape, (16, 5, 33), seed=3, dtype=torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            result = combine(method, parts, [1] * 3, PARAMETERS[method])
            for height in (5, shape[0]):
                tiles = [
                    result.rows(start, min(start + height, shape[0]))
                    for start in range(0, shape[0], height)
                ]
                results.append(torch.cat(tiles).view(torch.int32))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])
    assert torch.isfinite(results[0].view(torch.float32)).all()


# ── What cannot be is refused. ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "parameters", "words"),
    [
        ("ties", {}, "density"),
        ("ties", {"density": 0}, "density of 0"),
        ("ties", {"density": [0.1, 0.2]}, "2 for density"),
        ("ties", {"density": 0.5, "vote": "loud"}, "vote is 'loud'"),
        ("ties", {"density": 0.5, "colour": 1}, "colour"),
        ("breadcrumbs", {"density": 0.5, "gamma": 1}, "gamma is 1"),
        ("dare_linear", {"density": 0.5, "keys": [1]}, "1 for keys"),
        ("della", {"density": 0.5, "epsilon": 0.5, "keys": [1, 2, 3]}, "epsilon"),
        ("magic", {}, "no method 'magic'"),
    ],
)
def test_refusals(
    parts: list[Factors], method: str, parameters: dict[str, object], words: str
) -> None:
    with pytest.raises(RefError, match=words) as refusal:
        combine(method, parts, WEIGHTS, parameters)
    assert refusal.value.hint


def test_a_mean_by_negative_weights_is_refused(parts: list[Factors]) -> None:
    with pytest.raises(RefError, match="cannot divide"):
        combine("ties", parts, [1, -1, 1], {"density": 0.5})


def test_sce_takes_no_weights_and_needs_a_difference(parts: list[Factors]) -> None:
    with pytest.raises(RefError, match="weights of its own"):
        combine("sce", parts, WEIGHTS)
    with pytest.raises(IncompatibleError, match="agree everywhere"):
        combine("sce", [parts[0]] * 3, [1] * 3, {"select_topk": 0.5})


def test_without_adapters_there_is_nothing_to_combine() -> None:
    for method, usual in PARAMETERS.items():
        with pytest.raises(IncompatibleError, match="no factors"):
            combine(method, [], [], usual | ({"keys": ()} if "keys" in usual else {}))


def test_of_nothing_but_zeros_there_is_zero() -> None:
    zeros = [Factors(torch.zeros(5, 2), torch.zeros(2, 4))] * 3
    for method, usual in PARAMETERS.items():
        parameters = {"select_topk": 1.0} if method == "sce" else usual
        assert torch.equal(all_rows(combine(method, zeros, [1] * 3, parameters)), torch.zeros(5, 4))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_values_that_overflow_are_refused(value: float) -> None:
    broken = Factors(torch.full((2, 1), value), torch.full((1, 2), 1e30))
    with pytest.raises(AdapterError, match="NUM004"):
        combine("ties", [broken], [1], {"density": 0.5})


def test_rows_that_there_are_not(parts: list[Factors]) -> None:
    with pytest.raises(RefError, match="has no rows"):
        combine("ties", parts, WEIGHTS, {"density": 0.5}).rows(0, 311)
