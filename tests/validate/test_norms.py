"""Which deltas stand out among those of one adapter, by norm and by spectrum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from folders import PREFIX, adapter, factors, tensor
from rankloom.validate import validate

if TYPE_CHECKING:
    from pathlib import Path

RANK = 8
MODULES = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(4)]
ODD = MODULES[2]


def deltas(b: np.ndarray[Any, Any], count: int = 4, rank: int = RANK) -> dict[str, Any]:
    """Return factors of many directions each, but for one module, whose B is given."""
    content = factors(dict.fromkeys(MODULES[:count], (16, 16)), rank)
    return {**content, f"{PREFIX}{ODD}.lora_B.weight": tensor(b.astype(np.float32))}


def many(rank: int = RANK) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).standard_normal((16, rank))


def one(rest: float = 0.0, rank: int = RANK) -> np.ndarray[Any, Any]:
    """Return a B of one direction, and as much of the others."""
    return np.outer(np.arange(1.0, 17), np.ones(rank)) + rest * many(rank)


def found(folder: Path, content: dict[str, Any], rank: int = RANK) -> list[str]:
    """Return what NUM002 says of an adapter."""
    report = validate(adapter(folder, content, r=rank, target_modules=["q_proj"]))
    assert "NUM002" in report.checked
    assert {finding.rule for finding in report.findings} <= {"NUM002"}
    return [finding.message for finding in report.findings]


def test_a_delta_of_one_direction_stands_out(tmp_path: Path) -> None:
    assert found(tmp_path, deltas(one())) == [
        f"the delta of {ODD}.weight has one direction, others have many"
    ]


@pytest.mark.parametrize(
    ("b", "count", "rank"),
    [
        pytest.param(many(), 4, RANK, id="many directions"),
        pytest.param(one(rest=2.0), 4, RANK, id="one strong direction among others"),
        pytest.param(one(), 3, RANK, id="too few deltas to compare"),
        pytest.param(one(rank=4), 4, 4, id="a rank at which few directions are usual"),
        pytest.param(500 * many(), 4, RANK, id="a norm that layers may differ by"),
    ],
)
def test_what_is_usual_does_not(
    tmp_path: Path, b: np.ndarray[Any, Any], count: int, rank: int
) -> None:
    assert found(tmp_path, deltas(b, count, rank), rank) == []


def test_an_adapter_whose_deltas_all_have_one_direction_is_of_one_sort(tmp_path: Path) -> None:
    content = deltas(one())
    for module in MODULES:
        content[f"{PREFIX}{module}.lora_B.weight"] = content[f"{PREFIX}{ODD}.lora_B.weight"]
    assert found(tmp_path, content) == []


def test_the_share_of_the_first_direction_is_that_of_the_singular_values() -> None:
    """Against numpy's decomposition in float64; power iteration gets within 1e-6 where it counts.

    Slowly it converges only between directions of nearly one size, far from what stands out.
    """
    from rankloom.validate.norms import _measure

    random = np.random.default_rng(5)
    a = random.standard_normal((RANK, 16))
    for rest in (0.0, 0.01, 0.1):
        b = one(rest)
        values = np.linalg.svd(b @ a, compute_uv=False)
        norm, share = _measure(a @ a.T, b.T @ b)
        assert norm == pytest.approx(np.linalg.norm(values), rel=1e-9)
        assert share == pytest.approx(values[0] ** 2 / (values**2).sum(), rel=1e-6)
