"""peft_linear beside PEFT itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from lowrank_cases import deltas, part
from rankloom.composition import compose
from rankloom.errors import IncompatibleError, RankloomWarning, RefError

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["one", "two", "three"]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(24, 40, bias=False), nn.Linear(40, 24, bias=False)
        self.table = nn.Embedding(30, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(self.table(x)))  # type: ignore[no-any-return]


def adapters(folder: Path, rank: int = 4) -> PeftModel:
    """Three adapters of one rank on one model, saved; the last leaves a module alone."""
    torch.manual_seed(0)
    modules = {"one": ["up", "down", "table"], "two": ["up", "down", "table"], "three": ["up"]}
    configs = {
        name: LoraConfig(r=rank, lora_alpha=3 + n, target_modules=modules[name], use_rslora=n == 1)
        for n, name in enumerate(NAMES)
    }
    model: Any = get_peft_model(Small(), configs["one"], adapter_name="one")
    for name in NAMES[1:]:
        model.add_adapter(name, configs[name])
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return model  # type: ignore[no-any-return]


@pytest.mark.parametrize("weights", [[1.0, 0.5, 2.0], [0.7, -1.3, 1.0], [-1.0, -1.0, 0.25]])
def test_it_is_what_peft_makes(tmp_path: Path, weights: list[float]) -> None:
    model: Any = adapters(tmp_path / "parts")
    with pytest.warns(RankloomWarning, match="MRG011 peft_linear combines all A and all B apart"):
        composition = compose(
            [part(tmp_path / "parts" / name) for name in NAMES], weights, method="peft_linear"
        )
    found = composition.save(tmp_path / "mine")
    model.add_weighted_adapter(NAMES, weights, "all", combination_type="linear")
    model.save_pretrained(tmp_path / "theirs", selected_adapters=["all"])
    expected = linears(model)
    mine = linears(PeftModel.from_pretrained(Small(), str(found), adapter_name="all"))
    assert expected.keys() == mine.keys()
    for module, delta in expected.items():
        # PEFT adds up in float32.
        assert (mine[module] - delta).norm() <= 1e-6 * delta.norm(), module
    exact = compose([part(tmp_path / "parts" / name) for name in NAMES], weights)
    true = deltas(exact.save(tmp_path / "exact"))["up"]
    assert (mine["up"] - true).norm() > 0.1 * true.norm()


def linears(model: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - PEFT's model
    """What the adapter ``all`` adds to each module."""
    return {
        name: module.get_delta_weight("all").detach().double()
        for name, module in model.base_model.model.named_children()
    }


def test_ranks_must_agree_and_none_is_chosen(tmp_path: Path) -> None:
    adapters(tmp_path / "four")
    adapters(tmp_path / "five", rank=5)
    parts = [part(tmp_path / "four/one", "a"), part(tmp_path / "five/two", "b")]
    with pytest.warns(RankloomWarning, match="MRG011"):
        composition = compose(parts, method="peft_linear")
    with pytest.raises(IncompatibleError, match=r"MRG002 down.weight has rank 4 in a, 5 in b"):
        composition.save(tmp_path / "out")
    with pytest.raises(RefError, match="peft_linear has the rank of its adapters"):
        compose(parts, method="peft_linear", rank=4)
