"""The same lock gives the same bytes: in another process, on more threads, in other tiles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import torch

import reproduce
from lowrank_cases import Case, write_base
from rankloom.recipe.methods import METHODS
from rankloom_kernels.workspace import TILE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = {
    "model.layers.0.self_attn.q_proj": (150, 96),
    "model.layers.1.mlp.down_proj": (96, 210),
}


def run(folder: Path, threads: int, tile: int) -> dict[str, str]:
    hidden = {"PYTHONHASHSEED", "OMP_NUM_THREADS", "MKL_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["RANKLOOM_HOME"] = str(folder / "home")
    command = [sys.executable, reproduce.__file__, str(folder), str(threads), str(tile)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_every_method_gives_the_same_bytes_however_it_is_run(tmp_path: Path) -> None:
    Case(SHAPES, rank=4, alpha=8).write(tmp_path / "one")
    Case(SHAPES, rank=4, alpha=2, rslora=True, seed=1).write(tmp_path / "two")
    write_base(tmp_path / "base", torch.bfloat16, shapes=SHAPES)
    first = run(tmp_path, 1, TILE_BYTES)
    assert len(first) == 2 * len(METHODS)
    assert len(set(first.values())) > len(METHODS)
    assert run(tmp_path, 2, TILE_BYTES) == first
    # Tiles of 42 rows, and of 5. They have one size on every machine; a library may add up a
    # float32 product of other rows in another order, so this is asked of what is saved.
    for tile in (1 << 14, 1 << 11):
        other = run(tmp_path, 2, tile)
        assert {name for name in METHODS if other[name] != first[name]} == set()
