"""Figures against their dense definitions."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from factor_cases import dense, make, numbers, several, size
from rankloom.compose.factors.value import Factors
from rankloom.compose.interference.gather import gather
from rankloom.compose.interference.report import COLUMNS, InterferenceReport, report
from rankloom.compose.interference.signs import sample
from rankloom.compose.interference.value import Part
from rankloom.errors import AdapterError, IncompatibleError, RefError

if TYPE_CHECKING:
    from collections.abc import Sequence

Q = "model.layers.0.self_attn.q_proj.weight"


def parts_of(factors: Sequence[Factors], weights: Sequence[float]) -> list[Part]:
    return [
        Part(f"n{i}", weight, part)
        for i, (part, weight) in enumerate(zip(factors, weights, strict=True))
    ]


def mean_cos2(one: torch.Tensor, other: torch.Tensor) -> tuple[float, int]:
    """Mean cos² of the principal angles of two column spaces, and the larger dimension."""
    bases = []
    for matrix in (one, other):
        u, values, _ = torch.linalg.svd(matrix, full_matrices=False)
        bases.append(u[:, values > 1e-9 * values[0]])
    cosines = torch.linalg.svdvals(bases[0].T @ bases[1])
    least = min(bases[0].shape[1], bases[1].shape[1])
    return float(cosines.square().sum()) / least, max(basis.shape[1] for basis in bases)


@settings(max_examples=60)
@given(factors=several(2), weights=st.lists(numbers, min_size=4, max_size=4))
def test_lengths_angles_and_cancellation(factors: list[Factors], weights: list[float]) -> None:
    weights = weights[: len(factors)]
    scope = report([(Q, parts_of(factors, weights))]).targets[0]
    deltas = [weight * dense(part) for part, weight in zip(factors, weights, strict=True)]
    bounds = [size([part], [weight]) for part, weight in zip(factors, weights, strict=True)]
    assert [label for label, _ in scope.squares] == [f"n{i}" for i in range(len(deltas))]
    for (_, square), delta, bound in zip(scope.squares, deltas, bounds, strict=True):
        assert abs(square - float(delta.square().sum())) <= 1e-13 * bound**2
    whole = torch.stack(deltas).sum(0)
    # Roundings of 2^-53 of the products of magnitudes, some hundred of them.
    assert abs(scope.square - float(whole.square().sum())) <= 1e-13 * sum(bounds) ** 2
    squares = sum(float(delta.square().sum()) for delta in deltas)
    expected = 1 - float(whole.square().sum()) / squares
    assert scope.cancellation == pytest.approx(expected, abs=1e-13 * sum(bounds) ** 2 / squares)
    assert len(scope.pairs) == len(deltas) * (len(deltas) - 1) // 2
    for pair in scope.pairs:
        i, j = int(pair.first[1:]), int(pair.second[1:])
        x, y = deltas[i], deltas[j]
        noise = 1e-12 * bounds[i] * bounds[j] / float(x.norm() * y.norm())
        assert pair.cosine == pytest.approx(float((x * y).sum() / x.norm() / y.norm()), abs=noise)
        ratio = float(x.norm() / y.norm())
        assert pair.ratio == pytest.approx(ratio, rel=1e-9)
        assert pair.dominance == pytest.approx(max(ratio, 1 / ratio), rel=1e-9)
        lost = 1 - float((x + y).square().sum() / (x.square().sum() + y.square().sum()))
        assert pair.cancellation == pytest.approx(lost, abs=noise)


@settings(max_examples=40)
@given(seeds=st.lists(st.integers(0, 99), min_size=2, max_size=2), ranks=st.tuples(
    st.integers(1, 6), st.integers(1, 6)), shared=st.integers(0, 3))  # fmt: skip
def test_spaces_and_crosstalk(seeds: list[int], ranks: tuple[int, int], shared: int) -> None:
    one, other = (make(40, 30, rank, seed) for rank, seed in zip(ranks, seeds, strict=True))
    common = make(40, 30, shared, 7)
    one = Factors(torch.cat([one.b, common.b], 1), torch.cat([one.a, common.a]))
    [pair] = report([(Q, parts_of([one, other], [1, -2]))]).targets[0].pairs
    for found, chance, dimension, x, y in (
        (pair.overlap_out, pair.chance_out, 40, dense(one), dense(other)),
        (pair.overlap_in, pair.chance_in, 30, dense(one).T, dense(other).T),
    ):
        expected, larger = mean_cos2(x, y)
        assert found == pytest.approx(expected, abs=1e-9)
        assert chance == larger / dimension
    for found, x, y in (
        (pair.crosstalk_out, one.b, other.b),
        (pair.crosstalk_in, one.a.T, other.a.T),
    ):
        expected = float((x.T @ y).norm() / (x.norm() * y.norm()))
        assert found == pytest.approx(expected, abs=1e-12)
    assert pair.overlap == max(pair.overlap_out / pair.chance_out, pair.overlap_in / pair.chance_in)


def test_spaces_are_of_what_the_delta_does() -> None:
    one, other = make(40, 30, 4, 1), make(40, 30, 3, 2)
    # A row of A that B never uses reads nothing; one that is there twice is one.
    b = torch.cat([one.b, torch.zeros(40, 3), one.b[:, :1]], 1)
    padded = Factors(b, torch.cat([one.a, other.a, one.a[:1]]))
    [pair] = report([(Q, parts_of([padded, other], [1, 1]))]).targets[0].pairs
    expected, larger = mean_cos2(dense(one).T, dense(other).T)
    assert pair.overlap_in == pytest.approx(expected, abs=1e-9)
    assert pair.chance_in == larger / 30
    # Nor does a column of B write anything whose row of A is zero.
    unused = Factors(torch.cat([one.b, other.b], 1), torch.cat([one.a, torch.zeros(3, 30)]))
    [pair] = report([(Q, parts_of([unused, other], [1, 1]))]).targets[0].pairs
    expected, larger = mean_cos2(dense(one), dense(other))
    assert pair.overlap_out == pytest.approx(expected, abs=1e-9)
    assert pair.chance_out == larger / 40
    [same] = report([(Q, parts_of([one, Factors(-one.b, one.a)], [1, 1]))]).targets[0].pairs
    assert same.overlap_out == pytest.approx(1)
    assert same.overlap_in == pytest.approx(1)


def test_random_adapters_overlap_by_chance() -> None:
    factors = [make(512, 256, 16, seed) for seed in (1, 2)]
    [pair] = report([(Q, parts_of(factors, [1, 1]))]).targets[0].pairs
    assert (pair.chance_out, pair.chance_in) == (16 / 512, 16 / 256)
    # 256 squared cosines of mean r/n: their mean is within a quarter of it, five deviations.
    assert pair.overlap_out == pytest.approx(pair.chance_out, rel=0.25)
    assert pair.overlap_in == pytest.approx(pair.chance_in, rel=0.25)


def sign_conflict(x: torch.Tensor, y: torch.Tensor) -> float:
    least = torch.minimum(x.abs(), y.abs())
    return float(least[(x > 0) != (y > 0)].sum() / least.sum())


@pytest.mark.parametrize("weight", [1.0, -0.5])
def test_signs_are_exact_where_all_rows_are_looked_at(weight: float) -> None:
    factors = [make(60, 50, 4, 1), make(60, 50, 6, 2)]
    x, y = dense(factors[0]), weight * dense(factors[1])
    [pair] = report([(Q, parts_of(factors, [1, weight]))], rows=60).targets[0].pairs
    assert pair.sign_conflict == pytest.approx(sign_conflict(x, y), rel=1e-12)
    assert pair.met == pytest.approx(float(torch.minimum(x.abs(), y.abs()).sum()), rel=1e-12)


def test_signs_are_estimated_from_the_rows_that_were_drawn() -> None:
    factors = [make(400, 50, 4, 1), make(400, 50, 6, 2)]
    x, y = (dense(part) for part in factors)
    [pair] = report([(Q, parts_of(factors, [1, 1]))], rows=40, seed=3).targets[0].pairs
    rows = sample(Q, 400, 40, 3)
    assert pair.sign_conflict == pytest.approx(sign_conflict(x[rows], y[rows]), rel=1e-12)
    assert pair.sign_conflict == pytest.approx(sign_conflict(x, y), abs=0.05)
    # Scaled up to all rows, so that targets with more rows count for more.
    assert pair.met == pytest.approx(float(torch.minimum(x.abs(), y.abs()).sum()), rel=0.15)


def test_signs_of_adapters_that_agree_and_that_do_not() -> None:
    one = make(30, 20, 4, 1)
    [same] = report([(Q, parts_of([one, one], [1, 3]))]).targets[0].pairs
    [turned] = report([(Q, parts_of([one, one], [1, -3]))]).targets[0].pairs
    assert (same.sign_conflict, turned.sign_conflict) == (0, 1)
    assert (same.cosine, turned.cosine) == (pytest.approx(1), pytest.approx(-1))


def splitmix64(state: int) -> int:
    """The generator's next number, as its authors publish it."""
    mask = (1 << 64) - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@pytest.mark.parametrize(("name", "seed"), [(Q, 0), (Q, 1), ("x", 0)])
def test_rows_are_drawn_by_a_counter(name: str, seed: int) -> None:
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")
    step = 0x9E3779B97F4A7C15

    def drawn(row: int) -> int:
        number = splitmix64((key + row * step) % (1 << 64))
        return number - (1 << 64) if number >> 63 else number

    expected = sorted(sorted(range(1000), key=drawn)[:64])
    assert sample(name, 1000, 64, seed).tolist() == expected
    assert sample(name, 64, 64, seed).tolist() == list(range(64))


def test_another_seed_or_name_draws_other_rows() -> None:
    draws = {
        tuple(sample(name, 5000, 16, seed).tolist()) for name in ("a", "b") for seed in range(5)
    }
    assert len(draws) == 10


def test_how_many_directions_the_sum_has() -> None:
    one, other = make(60, 50, 5, 1, steep=0.3), make(60, 50, 4, 2, steep=0.3)
    spectrum = report([(Q, parts_of([one, other], [1, 2]))]).targets[0].spectrum
    values = torch.linalg.svdvals(dense(one) + 2 * dense(other))[:9]
    shares = values.square() / values.square().sum()
    assert spectrum is not None
    assert spectrum.rank == 9
    assert spectrum.rank_99 == int((shares.cumsum(0) < 0.99).sum()) + 1
    p = values / values.sum()
    assert spectrum.effective == pytest.approx(math.exp(-float((p * p.log()).sum())), rel=1e-10)
    flat = Factors(torch.eye(8, 4, dtype=torch.float64), torch.eye(4, 9, dtype=torch.float64))
    [scope] = report([(Q, parts_of([flat], [3]))]).targets
    assert scope.spectrum is not None
    assert scope.spectrum.effective == pytest.approx(4)
    assert scope.spectrum.rank_99 == 4


def test_what_is_zero_has_no_angle_and_breaks_nothing() -> None:
    one, fresh = make(20, 10, 3, 1), make(20, 10, 3, 2)
    fresh.b.zero_()
    found = report([(Q, parts_of([one, fresh], [1, 1]))])
    [pair] = found.total.pairs
    assert pair.cosine is pair.ratio is pair.dominance is pair.sign_conflict is None
    assert pair.overlap_out == pair.overlap_in == pair.crosstalk_out == 0
    assert found.total.cancellation == pytest.approx(0, abs=1e-15)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert '"cosine": null' in text
    found = report([(Q, parts_of([fresh, fresh], [1, 1]))])
    assert found.total.cancellation is None
    assert found.total.pairs[0].overlap == 0
    json.dumps(found.to_json(), allow_nan=False)
    found = report([(Q, parts_of([one, one], [1, -1]))])
    assert found.total.cancellation == pytest.approx(1)
    assert found.targets[0].spectrum is not None
    assert found.targets[0].spectrum.rank_99 == 0


def model() -> tuple[list[tuple[str, list[Part]]], dict[str, dict[str, torch.Tensor]]]:
    """Three adapters on some of the targets of a small model, and their weighted dense deltas."""
    layout = {
        "model.layers.10.self_attn.q_proj.weight": "abc",
        "model.layers.10.mlp.up_proj.weight": "ba",
        "model.layers.2.self_attn.q_proj.weight": "ab",
        "model.layers.2.mlp.up_proj.weight": "c",
        "lm_head.weight": "ac",
    }
    weights = {"a": 1.0, "b": -0.6, "c": 2.0}
    targets = []
    deltas: dict[str, dict[str, torch.Tensor]] = {}
    for number, (name, labels) in enumerate(layout.items()):
        parts = []
        for label in labels:
            factors = make(24 + number, 20, 3 + ord(label) % 3, number * 7 + ord(label))
            parts.append(Part(label, weights[label], factors))
            deltas.setdefault(name, {})[label] = weights[label] * dense(factors)
        targets.append((name, parts))
    return targets, deltas


def test_layers_and_total_are_one_long_delta() -> None:
    targets, deltas = model()
    found = report(iter(targets), rows=100)
    assert [scope.name for scope in found.layers] == ["other", "model.layers.2", "model.layers.10"]
    assert [scope.targets for scope in (*found.layers, found.total)] == [1, 2, 2, 5]
    groups = {"other": "lm_head", "model.layers.2": ".2.", "model.layers.10": ".10.", "total": ""}
    for scope in (*found.layers, found.total):
        here = {name: here for name, here in deltas.items() if groups[scope.name] in name}
        squares = {
            label: sum(float(d[label].square().sum()) for d in here.values() if label in d)
            for label in "abc"
        }
        assert dict(scope.squares) == pytest.approx({k: v for k, v in squares.items() if v})
        whole = sum(float(sum(d.values()).square().sum()) for d in here.values())
        assert scope.cancellation == pytest.approx(1 - whole / sum(squares.values()))
        for pair in scope.pairs:
            both = [d for d in here.values() if pair.first in d and pair.second in d]
            assert pair.targets == len(both)
            x = torch.cat([d[pair.first].flatten() for d in both])
            y = torch.cat([d[pair.second].flatten() for d in both])
            assert pair.cosine == pytest.approx(float(x @ y / x.norm() / y.norm()), abs=1e-12)
            assert pair.ratio == pytest.approx(float(x.norm() / y.norm()))
            assert pair.sign_conflict == pytest.approx(sign_conflict(x, y))
            means = [mean_cos2(d[pair.first], d[pair.second])[0] for d in both]
            assert pair.overlap_out == pytest.approx(sum(means) / len(means), abs=1e-9)
    again = gather("total", found.layers)
    for pair in found.total.pairs:
        [same] = [p for p in again.pairs if {p.first, p.second} == {pair.first, pair.second}]
        assert same.targets == pair.targets
        assert same.overlap_out == pytest.approx(pair.overlap_out, rel=1e-12)
        assert same.crosstalk_in == pytest.approx(pair.crosstalk_in, rel=1e-12)
    pairs = {(pair.first, pair.second): pair.targets for pair in found.total.pairs}
    assert {tuple(sorted(pair)): count for pair, count in pairs.items()} == {
        ("a", "b"): 3,
        ("a", "c"): 2,
        ("b", "c"): 1,
    }


def test_the_report_is_the_same_whatever_the_order_of_targets() -> None:
    targets, _ = model()
    one, other = report(targets), report(list(reversed(targets)))
    assert [scope.name for scope in one.targets] == [scope.name for scope in other.targets]
    assert one.to_json() == other.to_json()


def test_json_and_table() -> None:
    targets, _ = model()
    found = report(targets, rows=8, seed=5)
    value = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert value["estimated"] == {"sign_conflict": {"rows": 8, "seed": 5}}
    assert [scope["name"] for scope in value["targets"]] == [s.name for s in found.targets]
    pair = value["total"]["pairs"][0]
    assert pair["adapters"] == [found.total.pairs[0].first, found.total.pairs[0].second]
    assert pair["cosine"] == pytest.approx(found.total.pairs[0].cosine, rel=1e-5)
    assert value["total"]["norms"]["c"] == pytest.approx(
        math.sqrt(dict(found.total.squares)["c"]), rel=1e-5
    )
    assert value["targets"][0]["spectrum"]["rank_99"] >= 1
    for level, count in (("total", 3), ("layers", 8), ("targets", 9)):
        rows = found.table(level)  # type: ignore[arg-type]
        assert len(rows) == count
        assert all(len(row) == len(COLUMNS) for row in rows)
        assert rows[-1][0] == "total"
    assert found.table("total")[0][2] == f"{found.total.pairs[0].cosine:.3g}"


def test_weight_zero_takes_an_adapter_out() -> None:
    one, other = make(20, 10, 3, 1), make(20, 10, 3, 2)
    found = report([(Q, parts_of([one, other], [1, 0]))])
    assert found.total.pairs == ()
    assert [label for label, _ in found.total.squares] == ["n0"]
    assert found.targets[0].spectrum is not None
    assert found.targets[0].spectrum.rank == 3


def test_what_is_refused() -> None:
    one = make(20, 10, 3, 1)
    with pytest.raises(RefError, match="nothing to measure"):
        report([(Q, parts_of([one], [0]))])
    with pytest.raises(RefError, match="MRG004"):
        report([(Q, [Part("a", 1, one), Part("a", 1, one)])])
    with pytest.raises(RefError, match="MRG004"):
        report([(Q, [Part("a", 1, one)]), (Q, [Part("b", 1, one)])])
    with pytest.raises(RefError, match="0 rows"):
        report([(Q, [Part("a", 1, one)])], rows=0)
    with pytest.raises(IncompatibleError, match="BASE002"):
        report([(Q, parts_of([one, make(20, 11, 3, 1)], [1, 1]))])
    one.b[0, 0] = math.nan
    with pytest.raises(AdapterError, match="NUM001"):
        report([(Q, parts_of([one, one], [1, 1]))])


def test_no_delta_is_ever_made() -> None:
    # The delta itself would take 320 GB; four rows of it are 6 MB.
    factors = [make(200_000, 200_000, 2, seed, dtype=torch.float32) for seed in (1, 2)]
    found = report([(Q, parts_of(factors, [1, 1]))], rows=4)
    assert isinstance(found, InterferenceReport)
