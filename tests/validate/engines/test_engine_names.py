"""Names of modules in models of pictures and text, which changed between versions and classes.

PEFT itself is asked whether it finds them. What vLLM's mappers make of them was read in the wheel.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING

import peft
import pytest
import torch
from safetensors.torch import save_file

from rankloom.apply.live.load import load_model
from rankloom.base import reader as bases
from rankloom.validate import validate
from tiny_models import build

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {
    "in memory": "model.language_model.layers.{}",
    "of the text model": "model.layers.{}",
    "of transformers before 4.52": "language_model.model.layers.{}",
    "of the backbone": "language_model.layers.{}",
}
ACCEPTED_BY_VLLM = {
    ("gemma3", "in memory"),
    ("gemma3", "of transformers before 4.52"),
    ("qwen2_vl", "in memory"),
    ("qwen2_vl", "of the text model"),
    ("qwen2_vl", "of transformers before 4.52"),
}
"""gemma3_mm.py renames ``model.language_model.`` to ``language_model.model.``; qwen2_vl.py also
any other ``model.``. Nothing begins with ``language_model.layers`` in either."""


ROWS = {
    ("gemma3", "q_proj"): 24,
    ("gemma3", "v_proj"): 12,
    ("qwen2_vl", "q_proj"): 16,
    ("qwen2_vl", "v_proj"): 8,
}
"""Width of what each module gives."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name in ("gemma3", "qwen2_vl"):
        build(name).save_pretrained(root / name)
    return root


def write(folder: Path, names: str) -> Path:
    """Write an adapter of the layers' q and v under names of one form."""
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in range(2):
        for leaf in ("q_proj", "v_proj"):
            module = f"base_model.model.{names.format(layer)}.self_attn.{leaf}"
            rows = ROWS[folder.name, leaf]
            tensors[f"{module}.lora_A.weight"] = torch.randn(8, 16, generator=random)
            tensors[f"{module}.lora_B.weight"] = torch.randn(rows, 8, generator=random)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "acme/tiny",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def has_effect(base: Path, adapter: Path) -> bool:
    """Ask PEFT."""
    model = load_model(base)
    ids = torch.arange(6, 12).view(1, -1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of missing keys, which is what this is about
        before = model(input_ids=ids).logits
        after = peft.PeftModel.from_pretrained(model, adapter)(input_ids=ids).logits
    return not torch.equal(before, after)


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("base", ["gemma3", "qwen2_vl"])
def test_who_finds_the_modules(base: str, names: str, models: Path, tmp_path: Path) -> None:
    adapter = write(tmp_path / base, NAMES[names])
    report = validate(adapter, bases.read(models / base), engines=["vllm", "peft", "sglang"])
    verdicts = {judged.text: judged for judged in report.engines}
    accepted = (base, names) in ACCEPTED_BY_VLLM
    assert (verdicts["vllm"].verdict == "accept") is accepted
    if names == "of the backbone":
        # PEFT finds it on a model of the backbone's own class, which this is not.
        assert not has_effect(models / base, adapter)
        return
    assert (verdicts["peft"].verdict == "accept") is has_effect(models / base, adapter)
