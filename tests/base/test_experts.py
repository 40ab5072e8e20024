"""Adapters on parameters of experts, as PEFT writes and merges them, on each layout of the disk.

PEFT's own merge in float64 is the oracle, but where PEFT is known to be wrong.
"""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING

import pytest
import torch
import transformers as t
from peft import LoraConfig
from safetensors.torch import save_file

import peft_cases
from tiny_models import DECODER, build, randomised

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own, about tiny configs

EXPERTS = {
    "mixtral": "mlp.experts",
    "qwen2_moe": "mlp.experts",
    "qwen3_moe": "mlp.experts",
    "olmoe": "mlp.experts",
    "deepseek_v3": "mlp.experts",
    "granitemoe": "block_sparse_moe.experts",
    "jamba": "feed_forward.experts",
    "gpt_oss": "mlp.experts",
    "llama4": "feed_forward.experts",
}


@pytest.mark.parametrize("kind", EXPERTS)
def test_parameters_of_experts(kind: str, tmp_path: Path) -> None:
    check_by_peft(kind, ("down_proj", "gate_up_proj"), tmp_path)


@pytest.mark.parametrize("name", ["gate_up_proj", "down_proj"])
def test_one_parameter_of_experts_is_told_by_its_shape(name: str, tmp_path: Path) -> None:
    check_by_peft("mixtral", (name,), tmp_path)


def test_square_experts_that_are_kept_transposed(tmp_path: Path) -> None:
    config = {**DECODER, "intermediate_size": DECODER["hidden_size"], "head_dim": 4}
    model = t.GptOssForCausalLM(t.GptOssConfig(**config, num_local_experts=3))
    check_by_peft("gpt_oss", ("down_proj",), tmp_path, randomised(model))


def check_by_peft(
    kind: str, names: Sequence[str], folder: Path, model: t.PreTrainedModel | None = None
) -> None:
    config = LoraConfig(
        r=3,
        target_modules=[],
        target_parameters=[f"{EXPERTS[kind]}.{name}" for name in names],
        lora_alpha=5,
    )
    written = peft_cases.write(folder, model or build(kind), config)
    exact = peft_cases.merged_by_peft(written, folder / "exact")
    found = peft_cases.apply(written, folder / "out")
    peft_cases.check(found, exact, written.before)
    assert any(not torch.equal(found[name], written.before[name]) for name in found)


RANKS = {"w1": 2, "w2": 3, "w3": 4}


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("original", [True, False])
def test_adapters_of_linear_experts_have_each_their_own_scale(
    tmp_path: Path, *, original: bool, rslora: bool
) -> None:
    # transformers 4 had a linear layer for each matrix of each expert. PEFT 0.21 loads such an
    # adapter on transformers 5 with another scale if it is rsLoRA, so the oracle is the formula.
    model = build("mixtral")
    model.save_pretrained(tmp_path / "base", save_original_format=original)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: value.double() for name, value in before.items()}
    generator = torch.Generator().manual_seed(0)
    adapter = {}
    for expert, (leaf, rank) in itertools.product(range(3), RANKS.items()):
        gate_up, down = (
            state[f"model.layers.1.mlp.experts.{name}"][expert]
            for name in ("gate_up_proj", "down_proj")
        )
        weight = {"w1": gate_up[:24], "w3": gate_up[24:], "w2": down}[leaf]
        a = torch.randn(rank, weight.shape[1], generator=generator)
        b = torch.randn(weight.shape[0], rank, generator=generator)
        weight += 5 / (math.sqrt(rank) if rslora else rank) * b.double() @ a.double()
        module = f"model.layers.1.block_sparse_moe.experts.{expert}.{leaf}"
        adapter |= {
            f"base_model.model.{module}.lora_A.weight": a,
            f"base_model.model.{module}.lora_B.weight": b,
        }
    (tmp_path / "adapter").mkdir()
    save_file(adapter, tmp_path / "adapter/adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 5, "target_modules": list(RANKS),
        "rank_pattern": RANKS, "use_rslora": rslora,
    }  # fmt: skip
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    peft_cases.apply(tmp_path / "base", tmp_path / "out", tmp_path / "adapter")
    again = t.MixtralForCausalLM.from_pretrained(tmp_path / "out")
    peft_cases.check(again.state_dict(), state, before)
