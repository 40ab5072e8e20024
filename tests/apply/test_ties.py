"""TIES of four adapters on a checkpoint, beside dense deltas that are merged as the paper says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from lowrank_cases import Case, deltas, part, read_checkpoint, write_base
from rankloom.composition import compose

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:BASE001")

SHAPES = {
    "model.layers.0.self_attn.q_proj": (1100, 520),  # two tiles, the second one short
    "model.layers.0.mlp.down_proj": (96, 2050),
}
WEIGHTS = [1.0, 0.5, 0.75, 1.0]
DENSITIES = [0.2, 0.35, 0.2, 1.0]


def dense_ties(found: np.ndarray) -> np.ndarray:
    """Trim, elect and average whole deltas, (N, out, in) float32, one step after the other."""
    weights = np.array(WEIGHTS, dtype=np.float32)[:, None, None]
    kept = np.zeros_like(found)
    for number, (delta, density) in enumerate(zip(found, DENSITIES, strict=True)):
        limit = np.sort(np.abs(delta), axis=None)[-int(density * delta.size)]
        kept[number] = np.where(np.abs(delta) >= limit, delta, 0)
    votes = weights * kept
    agrees = np.sign(votes) == np.where(votes.sum(0) >= 0, 1, -1)
    share = np.where(agrees, weights, np.float32(0)).sum(0)
    total = np.where(agrees, votes, np.float32(0)).sum(0)
    return np.divide(total, share, out=np.zeros_like(total), where=share > 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_byte_is_that_of_dense_deltas(tmp_path: Path, workers: int) -> None:
    folders = [
        # Two products of bfloat16 numbers and their sum are exact in float64 in any order.
        Case(SHAPES, rank=2, alpha=4, dtype=torch.bfloat16, seed=seed).write(tmp_path / str(seed))
        for seed in range(len(WEIGHTS))
    ]
    before = write_base(tmp_path / "base", shapes=SHAPES)
    parts = [part(folder) for folder in folders]
    composition = compose(parts, WEIGHTS, method="ties", parameters={"density": DENSITIES})
    composition.apply_to(tmp_path / "base", tmp_path / "out", workers=workers)
    after, found = read_checkpoint(tmp_path / "out"), [deltas(folder) for folder in folders]
    for module in SHAPES:
        merged = dense_ties(torch.stack([one[module] for one in found]).float().numpy())
        old, new = before.pop(f"{module}.weight"), after.pop(f"{module}.weight")
        expected = (old.double() + torch.from_numpy(merged)).bfloat16()
        assert torch.equal(new.view(torch.int16), expected.view(torch.int16)), module
        assert not torch.equal(new, old)
    assert all(torch.equal(after[name], values) for name, values in before.items())
