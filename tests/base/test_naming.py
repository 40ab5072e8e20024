"""The data about transformers are what the installed one says, and are used as it uses them."""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers as t
from transformers import conversion_mapping, core_model_loading

from base_cases import as_delta, as_value, assembled
from folders import base, tensor
from rankloom.base import naming, reader
from rankloom.base.layout import Layout
from rankloom.base.locate import locate
from rankloom.base.orientation import TRANSPOSED_EXPERTS
from rankloom.base.renaming import Rule, Rules
from rankloom.errors import BaseError, IncompatibleError
from tiny_models import DECODER, MODELS, VISION, build

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own, about tiny configs

ROOT = Path(__file__).parents[2]


@cache
def generator() -> ModuleType:
    path = ROOT / "scripts/transformers_names.py"
    spec = importlib.util.spec_from_file_location("transformers_names", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_data(value: object) -> Any:  # noqa: ANN401 - what JSON makes of it
    return json.loads(json.dumps(value))


def test_data_are_of_the_installed_transformers() -> None:
    found, known = generator(), naming.data()
    assert known["transformers"] == t.__version__, "run scripts/transformers_names.py"
    assert known["conversions"] == as_data(found.conversions())
    assert known["tying"] == as_data(found.tying())


@pytest.mark.parametrize("name", sorted({type(make()).__name__ for make in MODELS.values()}))
def test_classes_are_as_the_generator_sees_them(name: str) -> None:
    found, model = generator(), getattr(t, name)
    instance = found._build(model, model.config_class)
    seen = {key: value for key, value in found._of_instance(instance).items() if value}
    known = dict(naming.data()["classes"][name])
    assert known.pop("type") == model.config_class.model_type
    assert known.pop("prefix") == model.base_model_prefix
    assert known == as_data(seen)


@pytest.mark.parametrize("kind", MODELS)
def test_names_become_what_transformers_makes_of_them(
    kind: str, saved: Callable[[str, bool], tuple[t.PreTrainedModel, Path]]
) -> None:
    model, folder = saved(kind, True)
    found = reader.read(folder)
    transforms = conversion_mapping.get_model_conversion_mapping(model)
    converters = [x for x in transforms if isinstance(x, core_model_loading.WeightConverter)]
    renamings = [x for x in transforms if isinstance(x, core_model_loading.WeightRenaming)]
    rules = next(naming.namings(found.config)).rules
    for name in sorted(found.tensors, key=core_model_loading.dot_natural_key):
        wanted, _ = core_model_loading.rename_source_key(name, renamings, converters)
        assert rules.apply(name)[0] == wanted


def test_every_model_that_says_its_experts_are_transposed_is_in_the_table() -> None:
    models = Path(t.__file__).parent / "models"
    users = {
        file.parent.name
        for file in models.glob("*/modeling_*.py")
        if re.search(r"@use_experts_implementation\(.*is_transposed=True", file.read_text("utf-8"))
    }
    assert users == TRANSPOSED_EXPERTS - {"aria_text"}


def test_an_adapter_of_another_class_finds_its_backbone(tmp_path: Path) -> None:
    model = build("vit")
    model.save_pretrained(tmp_path / "whole")
    model.vit.save_pretrained(tmp_path / "backbone")
    value = model.vit.layers[0].attention.q_proj.weight
    names = ("layers.0.attention.q_proj", "encoder.layer.0.attention.attention.query")
    for folder in ("whole", "backbone"):
        for name in (spelled for end in names for spelled in (end, f"vit.{end}")):
            pieces = locate(reader.read(tmp_path / folder), as_delta(f"{name}.weight", 16, 16))
            assert torch.equal(assembled(pieces, (16, 16)), value), (folder, name)


def test_a_composed_config_decides_the_names_of_the_models_within(tmp_path: Path) -> None:
    text = t.MixtralConfig(**DECODER, num_local_experts=2)
    config = t.LlavaConfig(
        text_config=text, vision_config=t.SiglipVisionConfig(**VISION), image_token_index=5
    )
    model = t.LlavaForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    found = reader.read(tmp_path)
    assert "language_model.model.layers.0.block_sparse_moe.experts.1.w1.weight" in found.tensors
    for name, value in model.named_parameters():
        pieces = locate(found, as_value(name, value.shape))
        assert torch.equal(assembled(pieces, value.shape), value), name


def test_plain_modules_keep_their_names(tmp_path: Path) -> None:
    mha = torch.nn.MultiheadAttention(8, 2)
    values = {f"mha.{name}": value for name, value in mha.state_dict().items()}
    arrays = {name: tensor(value.numpy()) for name, value in values.items()}
    folder = base(
        tmp_path, {**arrays, "block_sparse_moe.gate.weight": arrays["mha.out_proj.weight"]}
    )
    (folder / "config.json").unlink()
    found = reader.read(folder)
    for name in found.tensors:
        shape = found.tensors[name].shape
        assert locate(found, as_value(name, shape))[0].entry.name == name
    assert not locate(found, as_value("mha.q_proj.weight", (8, 8)))


@pytest.mark.parametrize("kind", ["wav2vec2", "plain"])
def test_weight_norm_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    if kind == "plain":
        conv = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(2, 3, 1))
        state = conv.state_dict()
        base(tmp_path, {f"conv.{k}": tensor(v.numpy()) for k, v in state.items()}, model_type=None)
        name, shape = "conv.weight", (3, 2, 1)
    else:
        model = build("wav2vec2")
        model.save_pretrained(tmp_path)
        name = "wav2vec2.encoder.pos_conv_embed.conv.weight"
        shape = tuple(model.get_submodule(name.removesuffix(".weight")).weight.shape)
    with pytest.raises(BaseError, match="weight norm"):
        locate(reader.read(tmp_path), as_value(name, shape))


def test_a_conversion_that_no_view_can_follow_is_refused_by_name(tmp_path: Path) -> None:
    values = tensor(np.zeros((12, 4), np.float32))
    folder = base(
        tmp_path,
        {"vision_encoder.transformer.layers.0.attention.wq.weight": values},
        model_type="mistral_large4",
        architectures=["MistralLarge4ForConditionalGeneration"],
    )
    name = "model.vision_tower.transformer.layers.0.attention.q_proj.weight"
    with pytest.raises(BaseError, match="PermuteForRope"):
        locate(reader.read(folder), as_delta(name, 12, 4))


MODULE = "model.layers.0.self_attn.q_proj"
ZEROS = tensor(np.zeros((6, 8), np.float32))
CODES = tensor(np.zeros((6, 4), np.uint8))
QUANTISED = {
    "gptq": {f"{MODULE}.qweight": CODES, f"{MODULE}.qzeros": CODES, f"{MODULE}.scales": ZEROS},
    "compressed-tensors": {f"{MODULE}.weight_packed": CODES, f"{MODULE}.weight_scale": ZEROS},
    "fp8": {f"{MODULE}.weight": tensor(np.zeros((6, 8), np.uint8), "F8_E4M3"),
            f"{MODULE}.weight_scale_inv": ZEROS},
    "bitsandbytes 4": {f"{MODULE}.weight": CODES, f"{MODULE}.weight.absmax": ZEROS},
    "bitsandbytes 8": {f"{MODULE}.weight": tensor(np.zeros((6, 8), np.int8)),
                       f"{MODULE}.SCB": ZEROS},
    "scaled floats": {f"{MODULE}.weight": ZEROS, f"{MODULE}.weight_scale": ZEROS},
}  # fmt: skip


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_modules_are_refused_with_the_remedy(kind: str, tmp_path: Path) -> None:
    config = {"quant_method": kind}
    whole = base(tmp_path, {**QUANTISED[kind], "lm_head.weight": ZEROS}, quantization_config=config)
    found = reader.read(whole)
    with pytest.raises(IncompatibleError, match=f"BASE006.*{kind}") as caught:
        locate(found, as_delta(f"{MODULE}.weight", 6, 8))
    assert "dequantize" in caught.value.hint
    assert locate(found, as_delta("lm_head.weight", 6, 8))


def test_names_of_a_group_move_together_or_not_at_all(tmp_path: Path) -> None:
    # Older checkpoints of this model have fc0 and fc1 for what is fc1 and fc2 in memory.
    start = "vision_tower.encoder.blocks.0.mlp"
    old = reader.read(of_kimi(tmp_path / "old", f"{start}.fc0", f"{start}.fc1"))
    (piece,) = locate(old, as_delta("model.vision_tower.layers.0.mlp.fc1.weight", 6, 8))
    assert piece.entry.name == f"{start}.fc0.weight"
    new = reader.read(of_kimi(tmp_path / "new", f"{start}.fc1", f"{start}.fc2"))
    (piece,) = locate(new, as_delta("model.vision_tower.layers.0.mlp.fc1.weight", 6, 8))
    assert piece.entry.name == f"{start}.fc1.weight"


def of_kimi(folder: Path, *modules: str) -> Path:
    fields = {"model_type": "kimi_k25", "architectures": ["KimiK25ForConditionalGeneration"]}
    return base(folder, {f"{module}.weight": ZEROS for module in modules}, **fields)


def test_a_name_that_can_mean_two_tensors_is_refused(tmp_path: Path) -> None:
    found = reader.read(base(tmp_path, {"m.0.weight": ZEROS, "m.1.weight": ZEROS}))
    shift = Rule("WeightRenaming", (r"m\.(\d+)",), (r"m.\1",), offset=1)
    found.__dict__["layouts"] = (Layout(found.tensors, naming.Naming(Rules((shift,)))),)
    (piece,) = locate(found, as_delta("m.2.weight", 6, 8))
    assert piece.entry.name == "m.1.weight"
    with pytest.raises(BaseError, match=r"m\.1\.weight can mean two tensors: m\.0\.weight"):
        locate(found, as_delta("m.1.weight", 6, 8))


def test_a_parameter_that_is_stored_twice_is_refused(tmp_path: Path) -> None:
    values = tensor(np.zeros(4, np.float32))
    found = base(tmp_path, dict.fromkeys(["bert.LayerNorm.gamma", "bert.LayerNorm.weight"], values))
    with pytest.raises(BaseError, match="stored 2 times"):
        locate(reader.read(found), as_value("bert.LayerNorm.weight", (4,)))


@pytest.mark.parametrize("nothing", [["llama"], {}, 7, None])
def test_a_type_that_is_no_text_is_none(nothing: object, tmp_path: Path) -> None:
    fields = {"model_type": nothing, "architectures": [nothing], "text_config": {}}
    found = reader.read(base(tmp_path, {"m.weight": ZEROS}, **fields))
    (piece,) = locate(found, as_delta("m.weight", 6, 8))
    assert piece.entry.name == "m.weight"
