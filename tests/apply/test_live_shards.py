"""A model spread over two processes becomes what the whole one does, and not a word is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

import sharded_world
from lowrank_cases import Case

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = {"0": (9, 6), "1": (7, 9)}


def test_shards_and_copies_of_two_processes(tmp_path: Path) -> None:
    Case(SHAPES, seed=1).write(tmp_path / "one")
    Case({"0": SHAPES["0"]}, rank=2, seed=2).write(tmp_path / "two")
    dora = Case({"0": SHAPES["0"]}).write(tmp_path / "dora")
    config = json.loads((dora / "adapter_config.json").read_text())
    (dora / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    tensors = load_file(dora / "adapter_model.safetensors")
    name = "base_model.model.0.lora_magnitude_vector"
    save_file({**tensors, name: torch.ones(9)}, dora / "adapter_model.safetensors")
    torch.multiprocessing.spawn(sharded_world.run, (str(tmp_path),), nprocs=2)
