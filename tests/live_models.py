"""Small models and compositions that lie on them, and their bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from lowrank_cases import Case, deltas, part, total
from rankloom.composition import Composition, compose

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

UNCHECKED = "ignore:BASE001 identity of .* not checked:rankloom.errors.RankloomWarning"
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50}


def llama(dtype: torch.dtype = torch.bfloat16, **options: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(**SMALL, intermediate_size=48, num_key_value_heads=2, **options)
    return LlamaForCausalLM(config).to(dtype).eval()


def bert(kind: type[nn.Module] = BertForMaskedLM) -> nn.Module:
    torch.manual_seed(0)
    return kind(BertConfig(**SMALL, intermediate_size=48)).eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=32)
    return GPT2LMHeadModel(config).eval()


def targets(model: nn.Module, *endings: str) -> dict[str, tuple[int, int]]:
    found = {}
    for name, module in model.named_modules():
        if name.endswith(endings):
            shape = tuple(module.weight.shape)
            found[name] = shape[::-1] if type(module).__name__ == "Conv1D" else shape
    return found


def composed(
    tmp_path: Path, shapes: dict[str, tuple[int, int]]
) -> tuple[Composition, dict[str, torch.Tensor]]:
    one = Case(shapes, rank=4, seed=1).write(tmp_path / "one")
    two = Case(shapes, rank=7, rslora=True, seed=2).write(tmp_path / "two")
    return compose([part(one), part(two)], [1, -0.5]), total(deltas(one), deltas(two, -0.5))


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(model: nn.Module, kept: dict[str, torch.Tensor]) -> bool:
    found = model.state_dict()
    return all(
        torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8))
        for name, tensor in kept.items()
    )
