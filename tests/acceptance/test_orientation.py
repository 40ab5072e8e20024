"""Bases without a config: what PEFT itself writes decides between the two ways to keep a weight."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import peft
import pytest
from torch import nn
from transformers.pytorch_utils import Conv1D

from acceptance import judge
from peft_cases import check, randomise, read_checkpoint, save_model

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out")

KINDS = {
    "lora": peft.LoraConfig(r=2, target_modules=["mix"]),
    "fourierft": peft.FourierFTConfig(n_frequency=20, scaling=30, target_modules=["mix"]),
    "vera": peft.VeraConfig(r=2, target_modules=["mix"]),
    "hira": peft.HiraConfig(r=2, target_modules=["mix"]),
    "ia3": peft.IA3Config(target_modules=["mix"], feedforward_modules=[]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [nn.Linear, Conv1D])
def test_a_square_layer(
    make: type[nn.Module], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKLOOM_HOME", str(tmp_path / "home"))
    base = nn.ModuleDict({"mix": make(8, 8), "head": nn.Linear(8, 4)})
    for parameter in base.parameters():
        nn.init.normal_(parameter)
    save_model(base, tmp_path / "base")
    model = peft.get_peft_model(base, copy.deepcopy(KINDS[kind]))
    randomise(model, 1)
    model.save_pretrained(tmp_path / "adapter")
    applied = judge.apply([tmp_path / "adapter"], tmp_path / "base", tmp_path / "out")
    if make is Conv1D or kind == "hira":  # whose config does not say which it was
        assert applied.code, "it may be added in the wrong way"
        assert "nothing tells" in applied.error
        return
    assert applied.code == 0, applied.error
    assert "BASE008 mix.weight" in applied.output
    save_model(model.double().merge_and_unload(), tmp_path / "merged")
    before, exact = (read_checkpoint(tmp_path / name) for name in ("base", "merged"))
    check(read_checkpoint(tmp_path / "out"), exact, before)
