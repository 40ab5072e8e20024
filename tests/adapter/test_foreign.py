"""A converted kohya file means to PEFT what it meant where it came from."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from rankloom.convert import convert
from rankloom.errors import UnsupportedAdapterError
from tiny_models import DECODER


# PEFT reads an attribute that transformers renames.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_peft_computes_the_source_s_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**DECODER)).double().eval()
    model.save_pretrained(tmp_path / "base")
    random, tensors, merged = np.random.default_rng(0), {}, deepcopy(model)
    for rank, (leaf, alpha) in enumerate([("self_attn.q_proj", 1.0), ("mlp.down_proj", 2.7)], 2):
        module = f"model.layers.1.{leaf}"
        layer = merged.get_submodule(module)
        a = random.normal(size=(rank, layer.in_features)).astype(np.float32)
        b = random.normal(size=(layer.out_features, rank)).astype(np.float32)
        flat, value = "lora_te_" + module.replace(".", "_"), np.array(alpha, np.float32)
        names = (f"{flat}.lora_down.weight", f"{flat}.lora_up.weight", f"{flat}.alpha")
        tensors |= dict(zip(names, (a, b, value), strict=True))
        layer.weight.data += torch.tensor(float(value) / rank * (b.astype(float) @ a.astype(float)))
    save_file(tensors, tmp_path / "kohya.safetensors")
    convert(tmp_path / "kohya.safetensors", tmp_path / "out", base=tmp_path / "base")
    tokens = torch.arange(8)[None]
    before, want = model(tokens).logits, merged(tokens).logits
    found = PeftModel.from_pretrained(model, tmp_path / "out").double()(tokens).logits
    assert (before - want).abs().max() > 1e-2
    # Llama's norms compute in float32, so its last bit may differ.
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["auto", "diffusers"])
def test_what_peft_wrote_is_not_converted_again(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "adapter_model.safetensors"
    prefix = "base_model.model.q_proj.lora_"
    factors = {f"{prefix}A.weight": np.ones((1, 4)), f"{prefix}B.weight": np.ones((4, 1))}
    save_file({name: f.astype(np.float32) for name, f in factors.items()}, source)
    with pytest.raises(UnsupportedAdapterError, match="PEFT tensor already"):
        convert(source, tmp_path / "out", kind=kind)
    assert not (tmp_path / "out").exists()
