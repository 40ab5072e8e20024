"""The conversions on the page of formats run as they stand, on files as other tools write them."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import save_file
from safetensors.torch import load_file

from adapter_folder import MODULES, WIDTH, write_adapter
from loractl.main import main
from rankloom.adapter.reader import read

DOC = (Path(__file__).parents[2] / "docs/formats.md").read_text()
FACTORS = {
    "lora_down.weight": np.ones((2, WIDTH), np.float32),
    "lora_up.weight": np.ones((WIDTH, 2), np.float32),
}


def flat(start: str, module: str) -> dict[str, np.ndarray]:
    name = start + module.replace(".", "_")
    return {f"{name}.{end}": value for end, value in FACTORS.items()}


def base(path: Path, *modules: str) -> None:
    path.mkdir(parents=True)
    weights = {f"{name}.weight": np.ones((WIDTH, WIDTH), np.float32) for name in modules}
    save_file(weights, path / "model.safetensors")
    (path / "config.json").write_text("{}")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    base(tmp_path / "llama", *MODULES)
    kohya = {key: value for name in MODULES for key, value in flat("lora_te_", name).items()}
    save_file(kohya, "style.safetensors")
    torch.save({key: torch.tensor(value) for key, value in kohya.items()}, "style.pt")
    write_adapter(tmp_path / "old-peft")
    old = tmp_path / "old-peft/adapter_model.safetensors"
    torch.save(load_file(old), old.with_suffix(".bin"))
    old.unlink()
    base(tmp_path / "pipeline/unet", "down.0.to_q")
    base(tmp_path / "pipeline/text_encoder", "layers.0.q_proj")
    (tmp_path / "pipeline/model_index.json").write_text("{}")
    both = flat("lora_unet_", "down.0.to_q") | flat("lora_te_", "layers.0.q_proj")
    save_file(both, "pipeline.safetensors")
    return tmp_path


def test_the_conversions_run_and_make_what_can_be_read(place: Path) -> None:
    blocks = re.findall(r"```console\n(.*?)```", DOC, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) >= 4
    for line in lines:
        result = CliRunner().invoke(main, shlex.split(line.removeprefix("$ loractl ")))
        assert result.exit_code == 0, (line, result.output)
    made = ["style", "style-2", "adapter", "pipeline-lora/unet", "pipeline-lora/text_encoder"]
    assert all(read(place / name).targets for name in made)
