from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import peft
import pytest
import torch
from torch import nn

from lowrank_cases import part
from peft_cases import apply, check, edit_config, merged_by_peft, write
from rankloom.composition import compose

if TYPE_CHECKING:
    from pathlib import Path


class Layers(nn.Module):
    """Two layers of which one has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(8, 4)
        self.two = nn.Linear(4, 8, bias=False)


@pytest.mark.filterwarnings("ignore:BASE001")  # no adapter of PEFT records its base
@pytest.mark.parametrize(
    "config",
    [
        peft.IA3Config(target_modules=["one", "two"], feedforward_modules=[]),
        peft.RoadConfig(target_modules=["one", "two"], group_size=4),
        peft.GloraConfig(target_modules=["one", "two"], r=2),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_a_bias_changes_with_its_layer_where_there_is_one(
    config: peft.PeftConfig, tmp_path: Path
) -> None:
    base = Layers()
    written = write(tmp_path, copy.deepcopy(base), config)
    edit_config(written.adapter, auto_mapping=None)
    exact = merged_by_peft(written, tmp_path / "merged")
    check(apply(written, tmp_path / "out"), exact, written.before)
    composition = compose([part(written.adapter)])
    with composition.apply(base):
        check(copy.deepcopy(base.state_dict()), exact, written.before)
    assert all(torch.equal(base.state_dict()[name], written.before[name]) for name in exact)
