"""Methods against their dense definitions, which know neither factors nor Gram matrices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from factor_cases import dense, make, numbers, several, size, total
from rankloom.compose.factors.gram import gram
from rankloom.compose.factors.methods import METHODS, coefficients, combine
from rankloom.compose.factors.value import Factors
from rankloom.errors import AdapterError, IncompatibleError, RefError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Deltas = list[torch.Tensor]
Weights = list[float]


def angle_of(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The angle, from the sides of a triangle (Kahan): good for small ones too."""
    one, other = one / one.norm(), other / other.norm()
    return 2 * torch.atan2((one - other).norm(), (one + other).norm())


def dense_linear(deltas: Deltas, weights: Weights) -> torch.Tensor:
    return sum(w * d for w, d in zip(weights, deltas, strict=True)) / sum(weights)


def dense_slerp(deltas: Deltas, weights: Weights, t: float = 0.3) -> torch.Tensor:
    v0, v1 = (w * d for w, d in zip(weights, deltas, strict=True))
    theta = angle_of(v0, v1)
    return (torch.sin((1 - t) * theta) * v0 + torch.sin(t * theta) * v1) / torch.sin(theta)


def dense_nuslerp(deltas: Deltas, weights: Weights) -> torch.Tensor:
    return dense_slerp(deltas, [1.0, 1.0], weights[1] / sum(weights))


def dense_multislerp(deltas: Deltas, weights: Weights, normalize: bool = True) -> torch.Tensor:
    """As mergekit writes it, with the step along the tangent."""
    shares = [w / sum(weights) if normalize else w for w in weights]
    norms = [d.norm() for d in deltas]
    units = [d / n for d, n in zip(deltas, norms, strict=True)]
    mean = sum(w * u for w, u in zip(shares, units, strict=True))
    mean = mean / mean.norm()
    tangents = [u - (u * mean).sum() * mean for u in units]
    tangent = sum(w * v for w, v in zip(shares, tangents, strict=True))
    length = tangent.norm() + 1e-12
    point = mean * torch.cos(length) + tangent * torch.sin(length) / length
    return point * sum(w * n for w, n in zip(shares, norms, strict=True))


def dense_karcher(deltas: Deltas, weights: Weights) -> torch.Tensor:
    shares = [w / sum(weights) for w in weights]
    units = [d / d.norm() for d in deltas]
    x = sum(a * u for a, u in zip(shares, units, strict=True))
    x = x / x.norm()
    for _ in range(400):
        logs = []
        for share, unit in zip(shares, units, strict=True):
            across = unit - (unit * x).sum() * x
            if across.norm() > 1e-14:
                logs.append(share * angle_of(unit, x) * across / across.norm())
        step = sum(logs, torch.zeros_like(x))
        x = torch.cos(step.norm()) * x + torch.sinc(step.norm() / math.pi) * step
        x = x / x.norm()
    return x * sum(a * d.norm() for a, d in zip(shares, deltas, strict=True))


def dense_model_stock(deltas: Deltas, weights: Weights) -> torch.Tensor:
    deltas = [w * d for w, d in zip(weights, deltas, strict=True)]
    count = len(deltas)
    cosines = [
        (deltas[i] * deltas[j]).sum() / (deltas[i].norm() * deltas[j].norm())
        for i in range(count)
        for j in range(i)
    ]
    cosine = sum(cosines) / len(cosines)
    t = count * cosine / (1 + (count - 1) * cosine)
    return t * sum(deltas) / count


def dense_norm_balanced(deltas: Deltas, weights: Weights) -> torch.Tensor:
    mean = sum(abs(w) * d.norm() for w, d in zip(weights, deltas, strict=True))
    mean = mean / sum(abs(w) for w in weights)
    return sum(w * mean * d / d.norm() for w, d in zip(weights, deltas, strict=True))


CASES: dict[str, tuple[Callable[..., torch.Tensor], dict[str, Any], int]] = {
    "exact": (lambda ds, ws: sum(w * d for w, d in zip(ws, ds, strict=True)), {}, 4),
    "linear": (dense_linear, {}, 4),
    "task_arithmetic": (
        lambda ds, ws: 0.4 * sum(w * d for w, d in zip(ws, ds, strict=True)),
        {"lambda": 0.4},
        4,
    ),
    "slerp": (dense_slerp, {"t": 0.3}, 2),
    "nuslerp": (dense_nuslerp, {}, 2),
    "multislerp": (dense_multislerp, {}, 4),
    "karcher": (dense_karcher, {}, 4),
    "model_stock": (dense_model_stock, {}, 4),
    "norm_balanced": (dense_norm_balanced, {}, 4),
}


def test_every_method_has_a_dense_definition() -> None:
    assert set(CASES) == set(METHODS)


def adapters(count: int, alike: float, seed: int) -> list[Factors]:
    """Deltas of mixed ranks and lengths that have ``alike`` times one common delta in them."""
    common = make(30, 26, 3, 1000 + seed)
    parts = []
    for number in range(count):
        own = make(30, 26, 2 + number, seed + number)
        b = torch.cat([alike * common.b, own.b], dim=1) * 1.7**number
        parts.append(Factors(b, torch.cat([common.a, own.a])))
    return parts


@pytest.mark.parametrize("method", CASES)
@pytest.mark.parametrize("alike", [0.0, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0, 1.0], [0.2, 1.5, 0.9, 3.0]])
def test_methods_are_their_dense_definitions(
    method: str, alike: float, weights: list[float]
) -> None:
    definition, parameters, count = CASES[method]
    for amount in {2, count}:
        parts = adapters(amount, alike, seed=amount)
        expected = definition([dense(part) for part in parts], weights[:amount])
        found = combine(method, parts, weights[:amount], parameters)
        error = (dense(found) - expected).norm() / expected.norm()
        # Angles of 1e-4 are known from a float64 cosine to 1e-8 of themselves, no better.
        assert error <= 1e-8, (method, alike, float(error))
        assert found.rank == sum(part.rank for part in parts)


@settings(max_examples=60)
@given(
    parts=several(2),
    weights=st.lists(st.floats(0.05, 4), min_size=4, max_size=4),
    method=st.sampled_from(sorted(CASES)),
)
def test_methods_on_any_deltas(parts: list[Factors], weights: list[float], method: str) -> None:
    definition, parameters, count = CASES[method]
    parts = parts[:count]
    weights = weights[: len(parts)]
    deltas = [dense(part) for part in parts]
    # In a space of one dimension, deltas may well be opposed or cancel: refused, tested below.
    angles = [float(angle_of(x, y)) for i, x in enumerate(deltas) for y in deltas[:i]]
    assume(max(angles) < 2.0)
    assume(all(angle == 0 or angle > 1e-3 for angle in angles))
    found = dense(combine(method, parts, weights, parameters))
    if method in {"slerp", "nuslerp"} and min(angles) < 1e-3:  # the definition divides 0 by 0
        t = 0.3 if method == "slerp" else weights[1] / sum(weights)
        scale = weights if method == "slerp" else [1.0, 1.0]
        expected = total(parts, [(1 - t) * scale[0], t * scale[1]])
    else:
        expected = definition(deltas, weights)
    assert (found - expected).norm() <= 1e-8 * sum(d.norm() for d in deltas) * max(1, *weights)


@settings(max_examples=40)
@given(parts=several(1), weights=st.lists(numbers, min_size=4, max_size=4))
def test_exact_sums_take_negative_weights(parts: list[Factors], weights: list[float]) -> None:
    weights = weights[: len(parts)]
    for method, factor, parameters in (
        ("exact", 1.0, {}),
        ("task_arithmetic", -0.5, {"lambda": -0.5}),
        ("linear", 1.0, {"normalize": False}),
    ):
        found = combine(method, parts, weights, parameters)
        expected = factor * total(parts, weights)
        assert (dense(found) - expected).abs().max() <= 1e-13 * size(parts, weights)


def test_signs_and_ratios_of_weights_count_where_they_can() -> None:
    parts = adapters(3, 0.5, 7)
    deltas = [dense(part) for part in parts]
    weights = [1.0, -0.4, 0.7]
    for method in ("norm_balanced", "multislerp", "model_stock"):
        expected = CASES[method][0](deltas, weights)
        found = dense(combine(method, parts, weights))
        assert (found - expected).norm() <= 1e-10 * expected.norm(), method
    expected = dense_slerp(deltas[:2], weights[:2])
    found = dense(combine("slerp", parts[:2], weights[:2], {"t": 0.3}))
    assert (found - expected).norm() <= 1e-10 * expected.norm()
    expected = dense_multislerp(deltas, [2.0, 1.0, 1.0], normalize=False)
    found = dense(combine("multislerp", parts, [2, 1, 1], {"normalize": False}))
    assert (found - expected).norm() <= 1e-10 * expected.norm()
    expected = 0.5 * dense_linear(deltas, weights)
    found = dense(combine("task_arithmetic", parts, weights, {"lambda": 0.5, "normalize": True}))
    assert (found - expected).norm() <= 1e-12 * expected.norm()


def test_ends_of_an_arc_are_the_deltas_and_its_points_lie_on_it() -> None:
    parts = [make(20, 20, 3, 1), make(20, 20, 5, 2)]
    one, other = (dense(part) for part in parts)
    for t, end in ((0, one), (1, other)):
        assert (dense(combine("slerp", parts, [1, 1], {"t": t})) - end).norm() < 1e-12 * end.norm()
    equal = [Factors(part.b / dense(part).norm(), part.a) for part in parts]
    middle = dense(combine("slerp", equal, [1, 1], {"t": 0.5}))
    assert middle.norm() == pytest.approx(1, abs=1e-12)  # a line would pass inside the sphere
    assert float(angle_of(middle, one)) == pytest.approx(float(angle_of(one, other)) / 2)


def test_between_deltas_of_one_direction_the_arc_is_a_line() -> None:
    one = Factors(torch.ones(1, 1), torch.ones(1, 1))
    for t in (0.25, 0.5):
        found = dense(combine("slerp", [one, Factors(2 * one.b, one.a)], [1, 1], {"t": t}))
        assert float(found) == pytest.approx(1 + t, abs=1e-12)


def test_the_karcher_mean_is_where_all_pulls_cancel() -> None:
    parts = adapters(4, 0.6, 3)
    units = [dense(part) / dense(part).norm() for part in parts]
    weights = torch.tensor([1.0, 2.0, 0.5, 1.5], dtype=torch.float64)
    mean = dense(combine("karcher", parts, weights.tolist()))
    mean = mean / mean.norm()
    pull = torch.zeros_like(mean)
    for weight, unit in zip(weights, units, strict=True):
        across = unit - (unit * mean).sum() * mean
        pull += weight * angle_of(unit, mean) * across / across.norm()
    assert pull.norm() < 1e-10


def test_a_delta_of_zero_is_one_of_n_and_has_no_direction() -> None:
    one, other = make(9, 8, 2, 1), make(9, 8, 3, 2)
    nothing = Factors(torch.zeros(9, 0), torch.zeros(0, 8))
    delta = dense(one)

    def near(found: Factors, expected: torch.Tensor) -> bool:
        return bool((dense(found) - expected).norm() <= 1e-12 * delta.norm())

    assert near(combine("slerp", [one, nothing], [1, 1], {"t": 0.25}), 0.75 * delta)
    assert near(combine("nuslerp", [nothing, one], [1, 3]), 0.75 * delta)
    assert near(combine("linear", [one, nothing], [1, 1]), 0.5 * delta)
    assert near(combine("norm_balanced", [one, nothing], [2, 1]), 2 * delta)
    assert near(combine("multislerp", [one, nothing], [1, 1]), 0.5 * delta)
    assert near(combine("karcher", [one, nothing], [1, 1]), 0.5 * delta)
    assert near(combine("model_stock", [one, nothing], [1, 1]), 0 * delta)
    for method in ("karcher", "multislerp", "norm_balanced", "model_stock", "exact"):
        assert near(combine(method, [nothing, nothing], [1, 1]), 0 * delta)
    assert near(combine("karcher", [one, nothing], [0, 1]), 0 * delta)
    three = dense(combine("karcher", [one, other, nothing], [1, 1, 1]))
    two = dense(combine("karcher", [one, other], [1, 1]))
    assert (three - two * (2 / 3)).norm() <= 1e-12 * two.norm()


@pytest.mark.parametrize("method", ["slerp", "nuslerp", "multislerp", "karcher", "model_stock"])
def test_opposed_deltas_are_refused(method: str) -> None:
    one = make(9, 8, 2, 1)
    parameters = {"t": 0.5} if method == "slerp" else {}
    with pytest.raises(IncompatibleError, match=method):
        combine(method, [one, Factors(-3 * one.b, one.a)], [1, 1], parameters)


def test_a_delta_that_is_opposed_to_the_mean_of_the_others_is_refused() -> None:
    one = make(9, 8, 2, 1)
    with pytest.raises(IncompatibleError, match="opposed to the mean"):
        combine("karcher", [one, Factors(-one.b, one.a)], [2, 1])


def test_coefficients_that_overflow_are_refused() -> None:
    with pytest.raises(AdapterError, match="NUM001"):
        combine("task_arithmetic", [make(9, 8, 2, 1)], [1e200], {"lambda": 1e200})


def test_a_mean_that_was_not_reached_is_refused() -> None:
    with pytest.raises(IncompatibleError, match="in 2 steps"):
        combine("karcher", adapters(3, 0.0, 1), [1, 2, 5], {"max_iter": 2})
    combine("karcher", adapters(3, 0.0, 1), [1, 2, 5], {"max_iter": 60, "tol": 1e-9})


@pytest.mark.parametrize(
    ("method", "weights", "parameters", "message"),
    [
        ("best", [1, 1], {}, "no method 'best'"),
        ("exact", [1], {}, "2 deltas, but 1 weights"),
        ("exact", [1, 1], {"t": 1}, "unexpected keyword argument 't'"),
        ("slerp", [1, 1], {}, "'t'"),
        ("slerp", [1, 1], {"t": math.nan}, "t = nan"),
        ("linear", [1, -1], {}, "add up to 0"),
        ("nuslerp", [1, -1], {}, "add up to 0"),
        ("karcher", [1, -0.5], {}, "negative"),
        ("karcher", [0, 0], {}, "add up to 0"),
    ],
)
def test_what_does_not_suit_a_method(
    method: str, weights: Sequence[float], parameters: dict[str, Any], message: str
) -> None:
    parts = [make(9, 8, 2, seed) for seed in (1, 2)]
    with pytest.raises(RefError, match=message):
        combine(method, parts, weights, parameters)


def test_numbers_of_adapters_that_do_not_suit_a_method() -> None:
    three = gram([make(9, 8, 2, seed) for seed in range(3)])
    with pytest.raises(RefError, match="add up to 0"):  # as decimals they do: 5.6e-17
        coefficients("linear", three, [0.1, 0.2, -0.3])
    with pytest.raises(RefError, match="slerp of 3 deltas"):
        coefficients("slerp", three, [1, 1, 1], {"t": 0.5})
    with pytest.raises(RefError, match="nuslerp of 3 deltas"):
        coefficients("nuslerp", three, [1, 1, 1])
    with pytest.raises(RefError, match="at least two"):
        coefficients("model_stock", three[:1, :1], [1])
