"""Adapters of embeddings, heads, tokens and experts, from the files to the logits of the model."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.config import KasaConfig
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from peft_cases import apply, randomise
from rankloom.errors import IncompatibleError

if TYPE_CHECKING:
    from pathlib import Path

Options = dict[str, Any]
_SIZES: Options = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 32,
}  # fmt: skip


def llama(*, tied: bool) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**_SIZES, tie_word_embeddings=tied))


def mixtral(*, tied: bool) -> MixtralForCausalLM:
    config = MixtralConfig(**_SIZES, num_local_experts=3, tie_word_embeddings=tied)
    return MixtralForCausalLM(config)


def gpt2(*, tied: bool) -> GPT2LMHeadModel:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 32, "n_positions": 32}
    return GPT2LMHeadModel(GPT2Config(**sizes, tie_word_embeddings=tied))


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.arange(9)[None]).logits
    return found


def errors_of(
    folder: Path,
    model: torch.nn.Module,
    options: Options,
    resize: int | None = None,
) -> float:
    """Return how far the merged checkpoint is from PEFT's model that was not merged."""
    model.save_pretrained(folder / "base")  # type: ignore[operator]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModelForCausalLM.from_pretrained(folder / "base")
        if resize:
            base.resize_token_embeddings(resize, mean_resizing=False)
        config = LoraConfig(r=2, lora_alpha=3, **copy.deepcopy(options))
        peft = get_peft_model(base, config)
        randomise(peft, size=0.2)
        peft.save_pretrained(folder / "adapter")
        wanted = logits(peft)
        apply(folder / "base", folder / "out", folder / "adapter")
        found = logits(AutoModelForCausalLM.from_pretrained(folder / "out"))
    assert (wanted - logits(model)).abs().max() > 0.01 if not resize else True
    return float((found - wanted).abs().max() / max(1.0, float(wanted.abs().max())))


EMBEDDINGS: dict[str, Options] = {
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "head": {"target_modules": ["lm_head"]},
    "both with dora": {"target_modules": ["embed_tokens", "lm_head"], "use_dora": True},
    "tied on purpose": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    "saved embedding": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "saved head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 1]},
    "tokens of the head": {
        "target_modules": ["q_proj"],
        "trainable_token_indices": {"lm_head": [3, 1]},
    },
    "tokens of each": {
        "target_modules": ["q_proj"],
        "trainable_token_indices": {"lm_head": [3, 1], "embed_tokens": [2]},
    },
    "kasa of the head": {"target_modules": ["lm_head"], "kasa_config": KasaConfig()},
    "pissa of the head": {"target_modules": ["lm_head"], "init_lora_weights": "pissa"},
}


@pytest.mark.parametrize("options", EMBEDDINGS.values(), ids=EMBEDDINGS)
def test_the_logits_are_those_of_peft(options: Options, tmp_path: Path) -> None:
    torch.manual_seed(0)
    # float32 throughout: the two sum in another order.
    assert errors_of(tmp_path, llama(tied=True), options) < 1e-5


@pytest.mark.parametrize("name", ["both with dora", "tokens", "kasa of the head"])
def test_the_logits_without_a_tie(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert errors_of(tmp_path, llama(tied=False), EMBEDDINGS[name]) < 1e-5


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["saved embedding", "tokens", "both with dora"])
def test_a_vocabulary_that_grew(name: str, *, tied: bool, tmp_path: Path) -> None:
    options = EMBEDDINGS[name]
    if name == "saved embedding":
        options = {**options, "modules_to_save": ["embed_tokens", "lm_head"]}
    torch.manual_seed(0)
    assert errors_of(tmp_path, llama(tied=tied), options, resize=40) < 1e-5


def test_a_tied_embedding_that_grew_brings_its_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = EMBEDDINGS["embedding"]
    assert errors_of(tmp_path / "tied", llama(tied=True), options, resize=40) < 1e-5
    with pytest.raises(IncompatibleError, match="lm_head"):
        errors_of(tmp_path / "untied", llama(tied=False), options, resize=40)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["c_attn", "c_proj"], "use_dora": True, "bias": "all"},
        {"target_modules": ["c_attn", "wte"]},
        {"target_modules": ["c_attn"], "lora_bias": True},
        {"target_modules": ["c_attn"], "init_lora_weights": "pissa"},
        {"target_modules": ["c_attn"], "trainable_token_indices": {"wte": [4]}},
        {"target_modules": ["c_attn"], "modules_to_save": ["wte", "ln_f"]},
    ],
    ids=str,
)
def test_a_model_of_transposed_layers(options: Options, tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert errors_of(tmp_path, gpt2(tied=True), options) < 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {
            "target_modules": ["q_proj"],
            "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
            "rank_pattern": {"down_proj": 3},
            "use_rslora": True,
        },
        {"target_modules": [], "target_parameters": ["experts.down_proj", "mlp.gate.weight"]},
    ],
    ids=str,
)
def test_a_mixture_of_experts(options: Options, tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert errors_of(tmp_path, mixtral(tied=False), options) < 1e-5
