"""Every sort of change on a live model: what a checkpoint becomes, and every bit back."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import IA3Config, LoraConfig
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from live_models import UNCHECKED, bits, same
from lowrank_cases import Case, deltas, part
from peft_cases import write
from rankloom.composition import compose
from rankloom.errors import IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings(UNCHECKED)
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "vocab_size": 50, "num_key_value_heads": 2}
ONE = {"num_hidden_layers": 1, "intermediate_size": 48}


def llama(**options: Any) -> nn.Module:  # noqa: ANN401
    return LlamaForCausalLM(LlamaConfig(**SMALL, **ONE, attention_bias=True, **options))


def tied() -> nn.Module:
    return llama(tie_word_embeddings=True)


def mixtral() -> nn.Module:
    return MixtralForCausalLM(MixtralConfig(**SMALL, **ONE, num_local_experts=4))


def gpt2() -> nn.Module:
    config = GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=50, n_positions=32)
    return GPT2LMHeadModel(config)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.planes, self.attention = nn.Conv2d(3, 8, 3), nn.MultiheadAttention(16, 4)
        self.linear, self.scale = nn.Linear(8, 5), nn.LayerNorm(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def lora(*modules: str, **options: Any) -> LoraConfig:  # noqa: ANN401
    return LoraConfig(r=4, target_modules=list(modules), **options)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "experts": (
        mixtral,
        lambda: lora("q_proj", target_parameters=["experts.gate_up_proj", "experts.down_proj"]),
    ),
    "DoRA (in, out)": (gpt2, lambda: lora("c_attn", use_dora=True)),
    "saved (in, out)": (gpt2, lambda: lora("c_attn", modules_to_save=["c_fc", "ln_f"])),
    "(IA)³": (llama, lambda: IA3Config(target_modules=["k_proj"], feedforward_modules=[])),
    "tied embedding": (tied, lambda: lora("embed_tokens")),
    "tied head": (tied, lambda: lora("lm_head", "embed_tokens")),
    "tied tokens": (tied, lambda: lora("q_proj", trainable_token_indices=[1, 7])),
    "biases": (llama, lambda: lora("q_proj", bias="all")),
    "plain modules": (Plain, lambda: lora("planes", "attention", "linear")),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_as_peft_merges_it_and_back_to_the_bit(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    build, config = CASES[name]
    base = build()
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)  # biases begin as zeros
    base = base.to(dtype)
    model, kept = copy.deepcopy(base), copy.deepcopy(base.state_dict())
    written = write(tmp_path, base, config(), dtype=dtype)
    exact = own_weights(written.model)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    with compose([part(written.adapter)]).apply(model) as handle:
        found = model.state_dict()
        assert found.keys() == kept.keys()
        for key, wanted in exact.items():
            step = torch.finfo(dtype).eps if dtype == torch.bfloat16 else 2e-6
            assert (found[key].double() - wanted).abs().max() <= step * (1 + wanted.abs().max())
        changed = {key for key in kept if not torch.equal(found[key], kept[key])}
        head = {"lm_head.weight"}
        expected = set(handle.targets) | (head if name == "tied tokens" else set())
        # The embedding's own values, which PEFT saves too, reach the head and are what it has.
        assert changed == expected - (head if name == "tied embedding" else set())
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, kept[key]), key
    for key, parameter in model.named_parameters(remove_duplicate=False):
        assert parameter is parameters[key], key


def own_weights(peft: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401
    """Return what PEFT merges in float64, tied tensors each for itself."""
    model = copy.deepcopy(peft).double()
    core = model.get_base_model()
    for owner in core.modules():
        for name, parameter in list(owner._parameters.items()):
            if parameter is not None:
                owner._parameters[name] = nn.Parameter(parameter.detach().clone())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT still takes them for tied
        return dict(model.merge_and_unload().state_dict())


def test_adapters_of_single_experts_reach_the_fused_parameter(tmp_path: Path) -> None:
    model = mixtral().float()
    kept = bits(model)
    start = "model.layers.0.block_sparse_moe.experts.2"
    shapes = {f"{start}.w1": (48, 32), f"{start}.w3": (48, 32), f"{start}.w2": (32, 48)}
    folder = Case(shapes, rslora=True).write(tmp_path / "adapter")
    delta = deltas(folder)
    up, down = (f"model.layers.0.mlp.experts.{name}_proj" for name in ("gate_up", "down"))
    exact = {name: tensor.double() for name, tensor in kept.items()}
    exact[up][2] += torch.cat([delta[f"{start}.w1"], delta[f"{start}.w3"]])
    exact[down][2] += delta[f"{start}.w2"]
    with compose([part(folder)]).apply(model) as handle:
        assert set(handle.targets) == {up, down}
        for name, tensor in model.state_dict().items():
            assert (tensor - exact[name]).abs().max() < 2e-6
    assert same(model, kept)


def test_a_parameter_that_is_not_contiguous(tmp_path: Path) -> None:
    model = Plain()
    model.linear.weight = nn.Parameter(torch.randn(8, 5).T)
    kept = model.linear.weight.detach().clone()
    folder = Case({"linear": (5, 8)}).write(tmp_path / "adapter")
    with compose([part(folder)]).apply(model):
        assert (model.linear.weight - kept - deltas(folder)["linear"]).abs().max() < 2e-6
    assert torch.equal(model.linear.weight, kept)


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path) -> None:
    grown = llama()
    grown.resize_token_embeddings(57, mean_resizing=False)
    config = lora("q_proj", modules_to_save=["embed_tokens", "lm_head"])
    written = write(tmp_path, grown, config)
    model = llama()
    with pytest.raises(IncompatibleError, match=r"BASE002 .*\(50, 32\)"):
        compose([part(written.adapter)]).apply(model)
