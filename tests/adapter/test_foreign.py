"""A converted file means to PEFT what it meant where it came from, whatever the names on disk."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
)

from rankloom.convert import convert
from rankloom.errors import IncompatibleError, UnsupportedAdapterError
from tiny_models import DECODER, GPT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

# PEFT reads an attribute that transformers renames, and warns of GPT-2's transposed layers.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning", "ignore:fan_in_fan_out:UserWarning"
)
ENCODER = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "initializer_range": 0.2,
}  # fmt: skip
CLIP = {**ENCODER, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
LLAMA, GPT2 = ["layers.1.self_attn.q_proj", "layers.0.mlp.down_proj"], ["h.0.attn.c_attn"]
BERT = ["encoder.layer.1.output.dense"]
CLIPS = ["encoder.layers.0.self_attn.q_proj"]
MODELS: dict[str, tuple[Callable[[], nn.Module], list[str], str]] = {
    "llama": (lambda: LlamaForCausalLM(LlamaConfig(**DECODER)), LLAMA, "model."),
    "llama bare": (lambda: LlamaModel(LlamaConfig(**DECODER)), LLAMA, ""),
    "gpt2": (lambda: GPT2LMHeadModel(GPT2Config(**GPT)), GPT2, "transformer."),
    "bert": (lambda: BertForMaskedLM(BertConfig(**ENCODER)), BERT, "bert."),
    "bert classifier": (
        lambda: BertForSequenceClassification(BertConfig(**ENCODER)), BERT, "bert.",
    ),
    "clip": (lambda: CLIPTextModel(CLIPTextConfig(**CLIP)), CLIPS, ""),
    "clip projected": (
        lambda: CLIPTextModelWithProjection(CLIPTextConfig(**CLIP)), CLIPS, "text_model.",
    ),
}  # fmt: skip
"""Model, modules without any prefix, and the prefix that the class puts before them."""


def outputs(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(8)[None])[0]


def kohya(model: nn.Module, modules: list[str], start: str) -> dict[str, np.ndarray]:
    """Return a file whose modules differ in rank and alpha; the model gets its change."""
    random, tensors = np.random.default_rng(0), {}
    for rank, name in enumerate(modules, 2):
        weight = model.get_parameter(f"{start}{name}.weight")
        turned = "c_attn" in name  # GPT-2 keeps (in, out)
        out, into = weight.shape[::-1] if turned else weight.shape
        a = random.normal(size=(rank, into)).astype(np.float32)
        b = random.normal(size=(out, rank)).astype(np.float32)
        alpha = np.array(rank - 0.3, np.float32)
        delta = torch.tensor(float(alpha) / rank * (b.astype(float) @ a.astype(float)))
        weight.data += delta.T if turned else delta
        tensors |= {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b}
        tensors[f"{name}.alpha"] = alpha
    return tensors


def flat(tensors: dict[str, np.ndarray], before: str) -> dict[str, np.ndarray]:
    ends = (".lora_down.weight", ".lora_up.weight", ".alpha")
    named = {}
    for key, value in tensors.items():
        end = next(end for end in ends if key.endswith(end))
        named[f"lora_te_{(before + key.removesuffix(end)).replace('.', '_')}{end}"] = value
    return named


@pytest.mark.parametrize("stored", ["with prefix", "bare"])
@pytest.mark.parametrize("spelled", ["full", "short", "old"])
@pytest.mark.parametrize("name", MODELS)
def test_peft_computes_the_source_s_outputs(
    tmp_path: Path, name: str, spelled: str, stored: str
) -> None:
    """The file's names with the class's prefix, without, or as an older version had them."""
    build, modules, start = MODELS[name]
    torch.manual_seed(0)
    model = build().double().eval()
    merged = deepcopy(model)
    tensors = kohya(merged, modules, start)
    model.save_pretrained(tmp_path / "base")
    if stored == "bare":  # as the files of GPT-2 have it on the Hub, under a class with a head
        path = tmp_path / "base/model.safetensors"
        own = {key: value for key, value in load_file(path).items() if key.startswith(start)}
        if not start or name == "clip projected":  # as files cannot be
            return
        save_file({key.removeprefix(start): value for key, value in own.items()}, path)
    before = {"full": start, "short": "", "old": "text_model." if "clip" in name else start}
    save_file(flat(tensors, before[spelled]), tmp_path / "in.safetensors")
    convert(tmp_path / "in.safetensors", tmp_path / "out", base=tmp_path / "base")
    plain, want = outputs(model), outputs(merged)
    found = outputs(PeftModel.from_pretrained(model, tmp_path / "out").double())
    assert (plain - want).abs().max() > 1e-3
    # The models' norms compute in float32, so their last bits may differ.
    torch.testing.assert_close(found, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ["auto", "diffusers"])
def test_what_peft_wrote_is_not_converted_again(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "adapter_model.safetensors"
    prefix = "base_model.model.q_proj.lora_"
    factors = {f"{prefix}A.weight": np.ones((1, 4)), f"{prefix}B.weight": np.ones((4, 1))}
    save_file({name: f.astype(np.float32) for name, f in factors.items()}, source)
    with pytest.raises(UnsupportedAdapterError, match="PEFT tensor already"):
        convert(source, tmp_path / "out", kind=kind)
    assert not (tmp_path / "out").exists()


def _base(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    path.mkdir(parents=True)
    weights = {f"{name}.weight": np.ones(shape, np.float32) for name, shape in shapes.items()}
    save_file(weights, path / "model.safetensors")
    (path / "config.json").write_text("{}")
    return path


def _lora(*modules: str, ends: tuple[str, str] = (".lora_down.weight", ".lora_up.weight")):  # noqa: ANN202
    a, b = np.ones((2, 4), np.float32), np.ones((6, 2), np.float32)
    return {
        module + end: value for module in modules for end, value in zip(ends, (a, b), strict=True)
    }


def test_a_flat_name_of_two_modules_is_refused_with_both(tmp_path: Path) -> None:
    base = _base(tmp_path / "base", {"a.b_c": (6, 4), "a_b.c": (6, 4), "a.d": (6, 4)})
    save_file(_lora("lora_unet_a_b_c"), tmp_path / "in.safetensors")
    with pytest.raises(UnsupportedAdapterError, match=r"can mean a\.b_c or a_b\.c"):
        convert(tmp_path / "in.safetensors", tmp_path / "out", base=base)
    save_file(_lora("lora_unet_a_x"), tmp_path / "in.safetensors")
    with pytest.raises(UnsupportedAdapterError, match=r"no module of the base; near: a\.d"):
        convert(tmp_path / "in.safetensors", tmp_path / "out", base=base)


def test_factors_of_other_sizes_than_the_base_are_refused(tmp_path: Path) -> None:
    base = _base(tmp_path / "base", {"a.d": (4, 6)})
    save_file(_lora("a.d"), tmp_path / "in.safetensors")
    with pytest.raises(IncompatibleError, match=r"\[6, 4\], the base has \[4, 6\]"):
        convert(tmp_path / "in.safetensors", tmp_path / "out", base=base)
    assert not (tmp_path / "out").exists()


PIPELINES = {
    "kohya": (".lora_down.weight", ".lora_up.weight"),
    "kohya-xl": (".lora_down.weight", ".lora_up.weight"),
    "processors": ("_lora.down.weight", "_lora.up.weight"),
    "linear layers": (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    "peft": (".lora_A.weight", ".lora_B.weight"),
}
ATTENTION, TEXT = "down_blocks.0.attn1", "text_model.encoder.layers.0.self_attn"
SPELLED = {
    "kohya": ["lora_unet_down_blocks_0_attn1_to_out_0", f"lora_te_{TEXT}.q_proj".replace(".", "_")],
    "kohya-xl": [
        "lora_unet_down_blocks_0_attn1_to_out_0", f"lora_te1_{TEXT}.q_proj".replace(".", "_"),
    ],
    "processors": [
        f"unet.{ATTENTION}.processor.to_out", f"text_encoder.{TEXT}.to_q",
    ],
    "linear layers": [f"unet.{ATTENTION}.to_out.0", f"text_encoder.{TEXT}.q_proj"],
    "peft": [f"unet.{ATTENTION}.to_out.0", f"text_encoder.{TEXT}.q_proj"],
}  # fmt: skip


@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize("kind", PIPELINES)
def test_a_file_for_a_pipeline_becomes_a_folder_for_each_model(
    tmp_path: Path, kind: str, with_base: bool
) -> None:
    names = {"unet": f"{ATTENTION}.to_out.0", "text_encoder": f"{TEXT}.q_proj"}
    base = tmp_path / "pipeline"
    for model, module in names.items():
        _base(base / model, {module: (6, 4)})
    (base / "model_index.json").write_text("{}")
    save_file(_lora(*SPELLED[kind], ends=PIPELINES[kind]), tmp_path / "in.safetensors")
    given = base if with_base else None
    if not with_base and kind.startswith("kohya"):
        with pytest.raises(UnsupportedAdapterError, match="without the base"):
            convert(tmp_path / "in.safetensors", tmp_path / "out", base=given)
        return
    report = convert(tmp_path / "in.safetensors", tmp_path / "out", base=given)
    assert report["checked"] is with_base
    for model, module in names.items():
        saved = load_file(tmp_path / "out" / model / "adapter_model.safetensors")
        assert saved.keys() == {f"base_model.model.{module}.lora_{x}.weight" for x in "AB"}
        config = json.loads((tmp_path / "out" / model / "adapter_config.json").read_text())
        assert config["lora_alpha"] / config["r"] == 1


def test_the_scale_comes_from_diffusers_metadata(tmp_path: Path) -> None:
    """diffusers keeps PEFT's config beside the tensors, where no alpha is a tensor."""
    names = ["transformer.blocks.0.to_q", "transformer.blocks.1.to_k"]
    config = {
        "r": 2, "lora_alpha": 16, "alpha_pattern": {"to_k": 3}, "use_rslora": False,
        "target_modules": ["to_q", "to_k"], "lora_dropout": 0.1,
    }  # fmt: skip
    path, base = tmp_path / "in.safetensors", tmp_path / "base"
    _base(base, {"blocks.0.to_q": (6, 4), "blocks.1.to_k": (6, 4)})

    def write(**fields: object) -> None:
        packed = {f"transformer.{key}": value for key, value in (config | fields).items()}
        tensors = _lora(*names, ends=PIPELINES["peft"])
        save_file(tensors, path, {"lora_adapter_metadata": json.dumps(packed)})

    write()
    convert(path, tmp_path / "out", base=base)
    saved = load_file(tmp_path / "out/adapter_model.safetensors")
    written = json.loads((tmp_path / "out/adapter_config.json").read_text())
    for module, scale in {"blocks.0.to_q": 8.0, "blocks.1.to_k": 1.5}.items():
        b = saved[f"base_model.model.{module}.lora_B.weight"]
        np.testing.assert_array_equal(b * written["lora_alpha"] / written["r"], scale)
    write(r=3)
    with pytest.raises(Exception, match="rank 2, and 3 in the metadata"):
        convert(path, tmp_path / "wrong", base=base)
    write(lora_bias=True)
    with pytest.raises(UnsupportedAdapterError, match="lora_bias"):
        convert(path, tmp_path / "wrong", base=base)


STABILITY = {
    "input_blocks_4_1_proj_in": "down_blocks.1.attentions.0.proj_in",
    "input_blocks_5_0_in_layers_2": "down_blocks.1.resnets.1.conv1",
    "input_blocks_7_0_skip_connection": "down_blocks.2.resnets.0.conv_shortcut",
    "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
    "middle_block_1_proj_out": "mid_block.attentions.0.proj_out",
    "middle_block_2_out_layers_3": "mid_block.resnets.1.conv2",
    "output_blocks_0_1_proj_in": "up_blocks.0.attentions.0.proj_in",
    "output_blocks_8_0_emb_layers_1": "up_blocks.2.resnets.2.time_emb_proj",
    "output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
    "output_blocks_8_1_conv": "up_blocks.2.upsamplers.0.conv",
    "label_emb_0_0": "add_embedding.linear_1",
}
"""Names that kohya writes for SDXL (two layers to a block), and diffusers' for the same modules.

The UNet's second block up has attention, its third has not, which decides the place of the step.
"""


def test_stability_s_names_of_a_unet_are_diffusers_modules(tmp_path: Path) -> None:
    modules = [*STABILITY.values(), "up_blocks.1.attentions.0.proj_in"]
    base = _base(tmp_path / "unet", dict.fromkeys(modules, (6, 4)))
    config = {"_class_name": "UNet2DConditionModel", "layers_per_block": 2}
    (base / "config.json").write_text(json.dumps(config))
    save_file(_lora(*(f"lora_unet_{name}" for name in STABILITY)), tmp_path / "in.safetensors")
    convert(tmp_path / "in.safetensors", tmp_path / "out", base=base)
    saved = load_file(tmp_path / "out/adapter_model.safetensors")
    wanted = STABILITY.values()
    assert saved.keys() == {f"base_model.model.{m}.lora_{x}.weight" for m in wanted for x in "AB"}


def test_names_that_begin_like_a_model_of_a_pipeline_are_of_the_one_base(tmp_path: Path) -> None:
    modules = ["transformer.h.0", "text_encoder.q", "head"]
    base = _base(tmp_path / "base", dict.fromkeys(modules, (6, 4)))
    save_file(_lora(*modules), tmp_path / "in.safetensors")
    report = convert(tmp_path / "in.safetensors", tmp_path / "out", base=base)
    assert [folder["modules"] for folder in report["folders"]] == [3]
    saved = load_file(tmp_path / "out/adapter_model.safetensors")
    assert saved.keys() == {f"base_model.model.{m}.lora_{x}.weight" for m in modules for x in "AB"}
    with pytest.raises(UnsupportedAdapterError, match="head does not say which model it is for"):
        convert(tmp_path / "in.safetensors", tmp_path / "other")
