"""Core methods against dense float64 definitions that know nothing of factors."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elementwise_truth import add, dense, elect, random_parts, trim
from rankloom.compose.core.methods import RULES, SPACES, combine
from rankloom.compose.core.space import core_space
from rankloom.compose.factors.value import Factors
from rankloom.errors import AdapterError, IncompatibleError, RefError
from splitmix import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WEIGHTS = (1.0, 0.5, 0.75)
RANKS = (4, 7, 3)
SHAPES = [(40, 55), (55, 40), (9, 30)]  # of the last, B spans fewer dimensions than R
TIES = {"density": 0.3, "sign_election": "unweighted", "divide_by": "count", "lambda": 0.7}
KEYS = (5, 6, -7)
RULE_PARAMETERS: dict[str, dict[str, Any]] = {
    "dare": {"density": 0.6, "keys": KEYS, "lambda": 0.7},
    "iso_c": {"lambda": 0.7},
    "task_arithmetic": {"lambda": 0.7},
    "ties": TIES,
    "tsv": {"lambda": 0.7},
}

PAIRS = list(itertools.product(SPACES, RULES))

# ── The definitions, dense. ───────────────────────────────────────────────────────────────────


def thin(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    kept = s > 1e-10 * max(s[0], 1e-300) if s.size else s > 0
    return u[:, kept], s[kept], vt[kept]


def rule_ties(matrices: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    kept = trim(matrices, [0.3] * len(matrices)).values
    options = {"sign_election": "unweighted", "divide_by": "count"}
    return elect(kept, weights, lambda_=0.7, **options).values


def rule_dare(matrices: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    stays = np.stack([mask(key, matrices.shape[1:], 0.6) for key in KEYS[: len(matrices)]])
    return 0.7 * add(np.where(stays, matrices / 0.6, 0), weights)


def rule_sum(matrices: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    return 0.7 * add(matrices, weights)


def rule_tsv(matrices: np.ndarray, weights: Sequence[float], size: int | None = None) -> np.ndarray:
    """U ← U·(UᵀU)^(−1/2) by the eigenvalues of UᵀU, and V likewise."""
    count = (size or min(matrices.shape[1:])) // len(matrices)
    us, values, vs = [], [], []
    for matrix, weight in zip(matrices, weights, strict=True):
        u, s, vt = thin(weight * matrix)
        us.append(u[:, :count])
        values += list(s[:count])
        vs.append(vt[:count].T)
    u, v = (vectors @ inverse_root(vectors.T @ vectors) for vectors in map(np.hstack, (us, vs)))
    return 0.7 * u @ np.diag(values) @ v.T


def inverse_root(gram: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(gram)
    roots = np.where(values > 1e-10, 1 / np.sqrt(np.maximum(values, 1e-10)), 0)
    return vectors @ np.diag(roots) @ vectors.T


def rule_iso(matrices: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    u, s, vt = thin(add(matrices, weights))
    return 0.7 * s.mean() * u @ vt


DENSE_RULES: dict[str, Callable[..., np.ndarray]] = {
    "dare": rule_dare,
    "iso_c": rule_iso,
    "task_arithmetic": rule_sum,
    "ties": rule_ties,
    "tsv": rule_tsv,
}


def bases(parts: Sequence[Factors]) -> tuple[np.ndarray, np.ndarray]:
    """Return reference bases of Core Space, each column's largest element positive."""
    u = thin(np.hstack([part.b.double().numpy() for part in parts]))[0]
    v = thin(np.vstack([part.a.double().numpy() for part in parts]))[2].T
    return settled(u), settled(v)


def settled(columns: np.ndarray) -> np.ndarray:
    largest = np.take_along_axis(columns, np.abs(columns).argmax(0)[None], 0)
    return columns * np.where(largest < 0, -1, 1)


def dense_core(
    parts: Sequence[Factors], weights: Sequence[float], rule: Callable[..., np.ndarray]
) -> np.ndarray:
    u, v = bases(parts)
    merged = rule(np.stack([u.T @ delta @ v for delta in dense(parts)]), weights)
    return u @ merged @ v.T


def dense_knots(
    parts: Sequence[Factors],
    weights: Sequence[float],
    rule: Callable[..., np.ndarray],
    vectors: str = "unit",
) -> np.ndarray:
    u, s, vt = thin(np.hstack(list(dense(parts))))
    signs = np.where(np.take_along_axis(u, np.abs(u).argmax(0)[None], 0) < 0, -1, 1)
    u, vt = u * signs, vt * signs.T
    left, right = (u, s[:, None] * vt) if vectors == "scaled" else (u * s, vt)
    return left @ rule(np.stack(np.hsplit(right, len(parts))), weights)


def dense_ctm(
    parts: Sequence[Factors],
    weights: Sequence[float],
    rule: Callable[..., np.ndarray],
    rank: int,
    beta: float = 0.0,
) -> np.ndarray:
    """Tucker-2 of the dense deltas by HOOI, until nothing moves."""
    deltas = dense(parts)
    norms = np.sqrt((deltas**2).sum((1, 2)))
    targets = [
        (beta * norm + (1 - beta) * norms.mean()) * delta / norm
        for delta, norm in zip(deltas, norms, strict=True)
    ]
    u = thin(np.hstack(targets))[0][:, :rank]
    v = thin(np.vstack(targets))[2][:rank].T
    for _ in range(3000):
        u = thin(np.hstack([target @ v for target in targets]))[0][:, :rank]
        v = thin(np.hstack([target.T @ u for target in targets]))[0][:, :rank]
    return u @ rule(np.stack([u.T @ delta @ v for delta in deltas]), weights) @ v.T


def difference(found: Factors, truth: np.ndarray) -> float:
    product = (found.b @ found.a).numpy()
    return float(np.linalg.norm(product - truth) / np.linalg.norm(truth))


# ── Each space with each rule. ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_core_space(rule: str, shape: tuple[int, int]) -> None:
    parts = random_parts(shape, RANKS, seed=11)
    found = combine("core", rule, parts, WEIGHTS, rule_parameters=RULE_PARAMETERS[rule])
    assert found.rank <= sum(RANKS)
    # Both sides are float64; the bases differ by some 1e-14 over the gaps of their spectrum.
    assert difference(found, dense_core(parts, WEIGHTS, DENSE_RULES[rule])) < 1e-9


@pytest.mark.parametrize("rule", ["iso_c", "task_arithmetic", "tsv"])
def test_rules_that_know_no_basis_need_no_core_space(rule: str) -> None:
    parts = random_parts((40, 55), RANKS, seed=12)
    found = combine("core", rule, parts, WEIGHTS, rule_parameters=RULE_PARAMETERS[rule])
    options = {"size": sum(RANKS)} if rule == "tsv" else {}
    assert difference(found, DENSE_RULES[rule](dense(parts), WEIGHTS, **options)) < 1e-9


@pytest.mark.parametrize("vectors", ["unit", "scaled"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rule", ["ties", "dare", "task_arithmetic"])
def test_knots(rule: str, shape: tuple[int, int], vectors: str) -> None:
    parts = random_parts(shape, RANKS, seed=13)
    found = combine(
        "knots",
        rule,
        parts,
        WEIGHTS,
        rule_parameters=RULE_PARAMETERS[rule],
        space_parameters={"vectors": vectors},
    )
    assert found.rank <= sum(RANKS)
    truth = dense_knots(parts, WEIGHTS, DENSE_RULES[rule], vectors)
    assert difference(found, truth) < 1e-9


def overlapping(shape: tuple[int, int], seed: int) -> list[Factors]:
    """Deltas that share most of their directions, as those that CtM is for."""
    generator = torch.Generator().manual_seed(seed)
    [shared, *own] = random_parts(shape, (4, 4, 4, 4), seed=seed)
    scale = torch.tensor([1.0, 0.5, 0.25, 0.12], dtype=torch.float64)
    parts = []
    for number, part in enumerate(own):
        mix = torch.eye(4, dtype=torch.float64) + 0.3 * torch.randn(
            4, 4, generator=generator, dtype=torch.float64
        )
        b = torch.cat([shared.b * scale @ mix, 0.05 * part.b], 1)
        parts.append(Factors(b * (1 + 3 * number), torch.cat([shared.a, 0.1 * part.a])))
    return parts


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("rule", ["task_arithmetic", "iso_c", "ties"])
def test_ctm(rule: str, beta: float) -> None:
    parts = overlapping((40, 55), seed=14)
    found = combine(
        "ctm",
        rule,
        parts,
        WEIGHTS,
        rule_parameters=RULE_PARAMETERS[rule],
        space_parameters={"rank": 3, "beta": beta},
    )
    assert found.rank == 3
    # HOOI stops when a round gains less than 1e-12 of the energy, a millionth in the bases.
    assert difference(found, dense_ctm(parts, WEIGHTS, DENSE_RULES[rule], 3, beta)) < 1e-5


def test_ctm_balances_lengths_unless_beta_is_one() -> None:
    small, large = random_parts((40, 55), (2, 2), seed=15)
    large = Factors(large.b * 100, large.a)

    def kept_of_small(beta: float) -> float:
        merged = combine(
            "ctm",
            "task_arithmetic",
            [small, large],
            [1, 0],
            space_parameters={"rank": 2, "beta": beta},
        )
        return float((merged.b @ merged.a).norm() / (small.b @ small.a).norm())

    assert kept_of_small(1.0) < 0.2  # the basis is the large one's
    assert kept_of_small(0.0) > 0.5


@pytest.mark.parametrize("space", SPACES)
def test_every_space_of_full_rank_loses_nothing(space: str) -> None:
    parts = random_parts((40, 55), RANKS, seed=16)
    given = {"rank": sum(RANKS)} if space == "ctm" else {}
    found = combine(space, "task_arithmetic", parts, (1, -0.5, 2), space_parameters=given)
    assert difference(found, add(dense(parts), (1, -0.5, 2))) < 1e-12


@pytest.mark.parametrize("rule", ["task_arithmetic", "ties", "tsv"])
def test_pico(rule: str) -> None:
    parts = random_parts((40, 55), RANKS, seed=17)
    u, s, _ = np.linalg.svd(np.hstack([part.b.numpy() for part in parts]), full_matrices=False)
    share = s**2 / (s**2).sum()
    operator = np.eye(40) + u @ np.diag(1 / (1 + 2 * share) - 1) @ u.T
    calmed = [Factors(torch.from_numpy(operator @ part.b.numpy()), part.a) for part in parts]
    merged = dense_core(calmed, WEIGHTS, DENSE_RULES[rule])
    lengths = [np.linalg.norm(delta) for delta in dense(parts)]
    truth = merged * np.mean(lengths) / np.linalg.norm(merged)
    given = RULE_PARAMETERS[rule]
    found = combine("core", rule, parts, WEIGHTS, rule_parameters=given, pico=True)
    assert difference(found, truth) < 1e-9


def test_pico_of_one_adapter_is_that_adapter() -> None:
    parts = random_parts((20, 30), [4], seed=18)
    found = combine("core", "task_arithmetic", parts, [1], pico=True)
    assert difference(found, dense(parts)[0]) < 1e-12


# ── Properties of Core Space. ─────────────────────────────────────────────────────────────────


@settings(max_examples=50)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    ranks=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
    twice=st.booleans(),
)
def test_core_space_loses_nothing(
    shape: tuple[int, int], ranks: list[int], seed: int, twice: bool
) -> None:
    parts = random_parts(shape, ranks, seed)
    parts = parts * 2 if twice else parts
    space = core_space(parts)
    assert space.u.shape[1] <= min(shape[0], sum(ranks))
    assert space.v.shape[0] <= min(shape[1], sum(ranks))
    assert torch.allclose(space.u.T @ space.u, torch.eye(space.u.shape[1], dtype=torch.float64))
    assert torch.allclose(space.v @ space.v.T, torch.eye(space.v.shape[0], dtype=torch.float64))
    for coordinates, delta in zip(space.coordinates, dense(parts), strict=True):
        back = (space.u @ coordinates @ space.v).numpy()
        assert np.allclose(back, delta, atol=1e-13)


def test_signs_are_settled() -> None:
    space = core_space(random_parts((40, 55), RANKS, seed=19))
    for columns in (space.u, space.v.T):
        ends = zip(columns.amax(0), columns.amin(0), strict=True)
        assert any(high > -low for high, low in ends)
    assert (space.u.gather(0, space.u.abs().argmax(0, keepdim=True)) > 0).all()


# ── Adapters that are alike, empty, or wrong. ─────────────────────────────────────────────────


@pytest.mark.parametrize(("space", "rule"), PAIRS)
def test_copies_of_an_adapter_add_no_dimension(space: str, rule: str) -> None:
    [part] = random_parts((30, 20), [3], seed=20)
    parts = [part, part, Factors(part.b * 2, part.a)]
    given = {"rank": 5} if space == "ctm" else {}
    parameters = RULE_PARAMETERS[rule]
    found = combine(space, rule, parts, WEIGHTS, rule_parameters=parameters, space_parameters=given)
    assert found.rank <= 3
    assert torch.isfinite(found.b @ found.a).all()
    # Every rule but the random one keeps these within the rows and columns of the one adapter.
    inside = torch.linalg.qr(part.b).Q
    product = found.b @ found.a
    assert torch.allclose(inside @ (inside.T @ product), product, atol=1e-12)


@pytest.mark.parametrize(("space", "rule"), PAIRS)
def test_of_zero_deltas_there_is_zero(space: str, rule: str) -> None:
    zeros = Factors(torch.zeros(6, 2), torch.zeros(2, 5))
    empty = Factors(torch.zeros(6, 0), torch.zeros(0, 5))
    given = {"rank": 2} if space == "ctm" else {}
    for pico in (False, True):
        found = combine(
            space,
            rule,
            [zeros, empty, zeros],
            WEIGHTS,
            rule_parameters=RULE_PARAMETERS[rule],
            space_parameters=given,
            pico=pico,
        )
        assert torch.equal(found.b @ found.a, torch.zeros(6, 5, dtype=torch.float64))


def test_iso_c_takes_the_mean_of_the_directions_that_are_left() -> None:
    one, other, shared = random_parts((30, 20), (3, 4, 2), seed=22)
    parts = [
        Factors(torch.cat([part.b, shared.b], 1), torch.cat([part.a, shared.a]))
        for part in (one, other)
    ]
    found = combine("core", "iso_c", parts, (1, -1), rule_parameters={"lambda": 0.7})
    # What is shared cancels: of the nine dimensions of Core Space, seven are left.
    assert difference(found, rule_iso(dense(parts), (1, -1))) < 1e-9


def test_negative_weights_are_those_of_the_opposite_delta() -> None:
    parts = random_parts((30, 20), (3, 4), seed=21)
    turned = [parts[0], Factors(-parts[1].b, parts[1].a)]
    for rule in ("task_arithmetic", "tsv", "iso_c"):
        one = combine("core", rule, parts, (1, -0.5))
        other = combine("core", rule, turned, (1, 0.5))
        assert torch.allclose(one.b @ one.a, other.b @ other.a, atol=1e-12)


@pytest.mark.parametrize(
    ("space", "rule", "space_parameters", "rule_parameters", "words"),
    [
        ("round", "ties", {}, TIES, "no space 'round'"),
        ("core", "kings", {}, {}, "no rule 'kings'"),
        ("core", "ties", {}, {}, "density"),
        ("core", "ties", {}, {"density": 2}, "density of 2"),
        ("core", "tsv", {"rank": 3}, {}, "rank"),
        ("core", "dare", {}, {"density": 0.5, "keys": [1]}, "1 for keys"),
        ("ctm", "tsv", {}, {}, "rank"),
        ("ctm", "tsv", {"rank": 0}, {}, "not a rank"),
        ("ctm", "tsv", {"rank": 1, "beta": 2}, {}, "beta"),
        ("knots", "ties", {"vectors": "long"}, TIES, "vectors"),
    ],
)
def test_refusals(
    space: str,
    rule: str,
    space_parameters: dict[str, Any],
    rule_parameters: dict[str, Any],
    words: str,
) -> None:
    with pytest.raises(RefError, match=words) as refusal:
        combine(
            space,
            rule,
            random_parts((8, 9), (2, 2, 2), seed=0),
            WEIGHTS,
            rule_parameters=rule_parameters,
            space_parameters=space_parameters,
        )
    assert refusal.value.hint


def test_one_weight_for_each() -> None:
    parts = random_parts((8, 9), (2, 2, 2), seed=0)
    for rule in RULES:
        with pytest.raises(RefError, match="2 for weights"):
            combine("core", rule, parts, (1, 2), rule_parameters=RULE_PARAMETERS[rule])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("pico", [False, True])
@pytest.mark.parametrize("space", SPACES)
def test_factors_that_hold_no_numbers_are_refused(space: str, pico: bool, value: float) -> None:
    given = {"rank": 1} if space == "ctm" else {}
    for part in (
        Factors(torch.full((3, 1), value), torch.ones(1, 3)),
        Factors(torch.ones(3, 1), torch.full((1, 3), value)),
    ):
        with pytest.raises(AdapterError, match="NUM001"):
            combine(space, "tsv", [part, part], [1, 1], space_parameters=given, pico=pico)


def test_deltas_of_two_shapes_are_refused() -> None:
    parts = random_parts((3, 4), [1], 0) + random_parts((4, 3), [1], 0)
    for space in ("core", "knots"):
        with pytest.raises(IncompatibleError):
            combine(space, "tsv", parts, [1, 1])
