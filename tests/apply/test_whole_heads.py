"""A new head of one adapter in parts that make one whole is written, as it can be saved."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rankloom import sdk
from rankloom.errors import RankloomWarning

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("weights", [[0.1] * 10, [0.7, 0.2, 0.1]], ids=["tenths", "three"])
def test_a_new_head_in_parts_is_written_and_saved(tmp_path: Path, weights: list[float]) -> None:
    assert sum(weights) != 1  # as added one after the other
    rng = np.random.default_rng(0)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    head = rng.normal(size=(3, 8)).astype("f4")
    _write(
        base,
        "model.safetensors",
        {
            f"{MODULE}.weight": rng.normal(size=(8, 8)).astype("f4"),
            "model.embed_tokens.weight": rng.normal(size=(10, 8)).astype("f4"),
        },
    )
    (base / "config.json").write_text(json.dumps({"model_type": "llama"}))
    prefix = "base_model.model."
    _write(
        adapter,
        "adapter_model.safetensors",
        {
            f"{prefix}{MODULE}.lora_A.weight": rng.normal(size=(2, 8)).astype("f4"),
            f"{prefix}{MODULE}.lora_B.weight": rng.normal(size=(8, 2)).astype("f4"),
            f"{prefix}score.weight": head,
        },
    )
    config = {"peft_type": "LORA", "task_type": "SEQ_CLS", "r": 2, "lora_alpha": 2}
    config |= {"target_modules": ["q_proj"], "modules_to_save": ["score"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.warns(RankloomWarning, match="MRG004"):
        composed = sdk.compose([str(adapter)] * len(weights), weights)

    composed.save(tmp_path / "saved")
    with pytest.warns(RankloomWarning, match="BASE001"):
        composed.apply_to(base, tmp_path / "applied")

    saved = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    applied = load_file(tmp_path / "applied" / "model.safetensors")
    assert np.array_equal(saved[f"{prefix}score.weight"], head)
    np.testing.assert_allclose(applied["score.weight"], head, rtol=2**-23)


def _write(folder: Path, name: str, tensors: dict[str, np.ndarray]) -> None:
    folder.mkdir()
    save_file(tensors, folder / name, metadata={"format": "pt"})
