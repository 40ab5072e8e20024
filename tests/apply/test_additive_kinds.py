"""Kinds with a delta of their own from files to files, where more than the formula matters."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import PeftModel, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

import peft_cases as cases

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftConfig

INPUTS = torch.arange(8)[None]


def llama(**options: Any) -> nn.Module:  # noqa: ANN401 - of transformers
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "vocab_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, attention_bias=True, **options))


def gpt() -> nn.Module:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=32, n_positions=16)
    )


def config(kind: str, targets: list[str], **options: Any) -> PeftConfig:  # noqa: ANN401
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: PeftConfig = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)](
            target_modules=targets, **options
        )
    return made


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(INPUTS).logits
    return found


def check(folder: Path, model: nn.Module, settings: PeftConfig, **options: Any) -> None:  # noqa: ANN401
    """The written checkpoint computes what PEFT does with the adapter's files, unmerged."""
    plain = copy.deepcopy(model)
    before = logits(plain)
    written = cases.write(folder, model, settings, size=0.3, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = logits(PeftModel.from_pretrained(plain, written.adapter))
        cases.apply(written, folder / "out")
        found = logits(AutoModelForCausalLM.from_pretrained(folder / "out"))
    assert (wanted - before).abs().max() > 1e-4
    # float32 sums in another order; logits are of size one
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)


ADALORA: dict[str, Any] = {
    "init_r": 4, "target_r": 2, "total_step": 10, "init_lora_weights": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ADALORA", ADALORA),
        ("VERA", {"r": 4}),
        ("RANDLORA", {"r": 4}),
        ("FOURIERFT", {"n_frequency": 60}),
        ("WAVEFT", {"n_frequency": 60}),
        ("DEFT", {"r": 4}),
    ],
)
def test_layers_that_keep_in_out(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    """Also square ones, whose shape would not tell."""
    check(tmp_path, gpt(), config(kind, ["c_attn", "c_proj"], **options))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("LOHA", {"r": 2}), ("VBLORA", {"vector_length": 4, "num_vectors": 12}), ("PEANUT", {"r": 2})],
)
def test_sharded_with_saved_modules(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    settings = config(kind, ["q_proj", "down_proj"], modules_to_save=["lm_head"], **options)
    check(tmp_path, llama(), settings, max_shard_size="8KB")


@pytest.mark.parametrize("bias", ["all", "c3a_only"])
def test_trained_biases(tmp_path: Path, bias: str) -> None:
    check(tmp_path, llama(), config("C3A", ["q_proj"], block_size=4, bias=bias))


@pytest.mark.parametrize("tied", [False, True])
def test_tokens_of_tied_and_untied_heads(tmp_path: Path, tied: bool) -> None:
    settings = config("TRAINABLE_TOKENS", ["embed_tokens"], token_indices=[5, 3])
    check(tmp_path, llama(tie_word_embeddings=tied), settings)


def test_some_layers_only(tmp_path: Path) -> None:
    check(tmp_path, llama(), config("LOKR", ["q_proj"], r=2, layers_to_transform=[1]))


class Kernels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(4, 6, 3)
        self.plane = nn.Conv2d(8, 6, 3, groups=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["LOHA", "LOKR"])
def test_convolutions_in_every_dtype(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    settings = config(kind, ["line", "plane"], r=2)
    written = cases.write(tmp_path, Kernels(), settings, dtype=dtype)
    cases.edit_config(written.adapter, auto_mapping=None)  # it names this test
    found = cases.apply(written, tmp_path / "out")
    cases.check(found, cases.merged_by_peft(written, tmp_path / "merged"), written.before)
    cases.check_changed(found, written.before, ["line.weight", "plane.weight"])
