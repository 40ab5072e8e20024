from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from rankloom.adapter.reader import read
from rankloom.composition import Part, compose
from rankloom.digest import of_json

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

pytestmark = pytest.mark.filterwarnings(
    "ignore:BASE001 identity of .* not checked:rankloom.errors.RankloomWarning",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",  # PEFT with transformers 5
)
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=50,
        intermediate_size=48,
    )
    return LlamaForCausalLM(config).double().eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=32)
    return GPT2LMHeadModel(config).double().eval()


def trained(model: nn.Module, path: Path, seed: int, **config: object) -> Part:
    """Let PEFT write an adapter with B that is not zero."""
    torch.manual_seed(seed)
    wrapped = get_peft_model(model.float(), LoraConfig(init_lora_weights=False, **config))
    wrapped.save_pretrained(path)
    return Part(read(path), of_json(seed), path.name)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


def parts(tmp_path: Path) -> list[Part]:
    return [
        trained(
            llama(),
            tmp_path / "one",
            1,
            r=4,
            lora_alpha=8,
            target_modules=["q_proj", "v_proj"],
            rank_pattern={"layers.1.self_attn.q_proj": 7},
            alpha_pattern={"^model.layers.0.self_attn.v_proj": 3},
        ),
        trained(
            llama(),
            tmp_path / "two",
            2,
            r=6,
            lora_alpha=5,
            use_rslora=True,
            target_modules=["q_proj", "down_proj"],
            layers_to_transform=[1],
        ),
    ]


def test_peft_loads_what_we_save_and_computes_what_we_apply(tmp_path: Path) -> None:
    composition = compose(parts(tmp_path), [0.8, -1.5])
    saved = composition.save(tmp_path / "out")
    loaded = PeftModel.from_pretrained(llama(), saved, autocast_adapter_dtype=False)
    model = llama()
    plain = logits(model)
    with composition.apply(model):
        applied = logits(model)
    assert (applied - plain).abs().max() > 0.01
    # The model is float64, the factors in the file are float32: roundings of 2^-24.
    assert (logits(loaded) - applied).abs().max() < 2e-5


def test_one_adapter_is_what_peft_merges(tmp_path: Path) -> None:
    one = parts(tmp_path)[0]
    merged = PeftModel.from_pretrained(llama(), one.adapter.path).merge_and_unload()
    model = llama()
    with compose([one]).apply(model):
        for (name, mine), (_, theirs) in zip(
            model.named_parameters(), merged.named_parameters(), strict=True
        ):
            # PEFT forms the delta in float32 and rounds scale·(B·A) once more.
            assert (mine - theirs).abs().max() < 1e-6, name


@pytest.mark.filterwarnings("ignore:fan_in_fan_out:UserWarning")
def test_gpt2_and_its_transposed_weights(tmp_path: Path) -> None:
    one = trained(gpt2(), tmp_path / "one", 1, r=4, target_modules=["c_attn", "c_fc"])
    two = trained(gpt2(), tmp_path / "two", 2, r=3, lora_alpha=7, target_modules=["c_attn"])
    composition = compose([one, two], [1, -0.5])
    saved = composition.save(tmp_path / "out")
    loaded = PeftModel.from_pretrained(gpt2(), saved, autocast_adapter_dtype=False)
    model = gpt2()
    with composition.apply(model):
        assert (logits(loaded) - logits(model)).abs().max() < 2e-5  # as above
    gpt2().float().save_pretrained(tmp_path / "base")
    composition.apply_to(tmp_path / "base", tmp_path / "merged", dtype="float64")
    from_disk = GPT2LMHeadModel.from_pretrained(tmp_path / "merged").double().eval()
    # The base went to disk in float32, from which it was made: nothing was lost on the way.
    assert (logits(loaded) - logits(from_disk)).abs().max() < 2e-5


def test_a_checkpoint_that_was_applied_to_loads_in_transformers(tmp_path: Path) -> None:
    composition = compose(parts(tmp_path), [1, 2])
    llama().float().save_pretrained(tmp_path / "base", max_shard_size="20KB")
    report = composition.apply_to(tmp_path / "base", tmp_path / "merged")
    assert report.changed == report.targets == len(composition.targets)
    merged = LlamaForCausalLM.from_pretrained(tmp_path / "merged").double().eval()
    model = llama()
    with composition.apply(model):
        # Weights of about 0.02 rounded to float32, through two layers.
        assert (logits(merged) - logits(model)).abs().max() < 1e-5
