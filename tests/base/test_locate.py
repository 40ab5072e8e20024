"""Where a target lies in a base: transformers itself tells what is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers

from folders import base, tensor
from rankloom.adapter.change import LowRank, Target
from rankloom.base import reader
from rankloom.base.locate import locate, nearest
from rankloom.base.orientation import CONV1D_MODELS, CONV1D_MODULES, is_assumed
from rankloom.errors import BaseError
from rankloom.tensorfile.header import TensorEntry

if TYPE_CHECKING:
    from rankloom.base.model import Base


def target(module: str) -> Target:
    none = TensorEntry(Path(), "", "F32", (1, 1), 0, 4)
    return Target(module, "lora", LowRank(none, none, 1.0))


def with_tensors(
    folder: Path, *names: str, shape: tuple[int, ...] = (2, 3), **config: object
) -> Base:
    values = tensor(np.zeros(shape, np.float32))
    return reader.read(base(folder, dict.fromkeys(names, values), **config))


def located(found: Base, module: str) -> str | None:
    pieces = locate(found, target(module))
    return pieces[0].entry.name if pieces else None


def test_the_exact_name_wins(tmp_path: Path) -> None:
    found = with_tensors(tmp_path, "model.q.weight", "q.weight")
    assert located(found, "q") == "q.weight"
    assert located(found, "model.q") == "model.q.weight"


def test_a_prefix_is_added_or_dropped(tmp_path: Path) -> None:
    assert (
        located(with_tensors(tmp_path / "1", "bert.a.q.weight", "cls.x.weight"), "a.q")
        == "bert.a.q.weight"
    )
    assert (
        located(with_tensors(tmp_path / "2", "a.q.weight", "b.weight"), "bert.a.q") == "a.q.weight"
    )


def test_what_could_be_two_tensors_is_none(tmp_path: Path) -> None:
    found = with_tensors(tmp_path, "encoder.block.q.weight", "decoder.block.q.weight")
    assert located(found, "block.q") is None


def test_no_prefix_is_dropped_where_the_base_has_it(tmp_path: Path) -> None:
    found = with_tensors(tmp_path, "model.a.weight", "layers.9.q.weight")
    assert located(found, "model.layers.9.q") is None


CONFIGS = {
    "gpt2": transformers.GPT2Config(
        n_embd=8, n_layer=1, n_head=2, vocab_size=9, n_positions=4, bos_token_id=0, eos_token_id=0,
        add_cross_attention=True,
    ),
    "openai-gpt": transformers.OpenAIGPTConfig(
        n_embd=8, n_layer=1, n_head=2, vocab_size=9, n_positions=4
    ),
    "imagegpt": transformers.ImageGPTConfig(
        n_embd=8, n_layer=1, n_head=2, vocab_size=9, n_positions=4
    ),
    "decision_transformer": transformers.DecisionTransformerConfig(
        hidden_size=8, n_layer=1, n_head=2, state_dim=2, act_dim=2, max_ep_len=4, n_positions=4,
        bos_token_id=0, eos_token_id=0,
    ),
    "gpt_bigcode": transformers.GPTBigCodeConfig(
        n_embd=8, n_layer=1, n_head=2, vocab_size=9, n_positions=4, bos_token_id=0, eos_token_id=0
    ),
    "llama": transformers.LlamaConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=9, bos_token_id=0, eos_token_id=0,
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # transformers' own, about configs as small as these
@pytest.mark.parametrize("kind", CONFIGS)
def test_orientation_is_the_one_of_transformers_modules(kind: str, tmp_path: Path) -> None:
    model = transformers.AutoModel.from_config(CONFIGS[kind])
    model.save_pretrained(tmp_path)
    found = reader.read(tmp_path)
    seen = 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | transformers.pytorch_utils.Conv1D):
            (place,) = locate(found, target(name))
            assert place.transposed is isinstance(module, transformers.pytorch_utils.Conv1D), name
            seen += 1
    assert seen


def test_conv1d_within_a_composite_model(tmp_path: Path) -> None:
    name = "decoder.transformer.h.0.attn.c_attn"
    inner: dict[str, Any] = {"model_type": "gpt2"}
    found = with_tensors(
        tmp_path, f"{name}.weight", model_type="vision-encoder-decoder", decoder=inner
    )
    (place,) = locate(found, target(name))
    assert place.transposed


def test_every_model_of_transformers_with_conv1d_is_in_the_table() -> None:
    models = Path(transformers.__file__).parent / "models"
    users = set()
    for file in models.glob("*/modeling_*.py"):
        text = file.read_text("utf-8")
        if "pytorch_utils import" in text and " Conv1D(" in text.replace("=Conv1D", "= Conv1D"):
            users.add(file.parent.name)
            used = {
                line.split("=")[0].strip().removeprefix("self.")
                for line in text.splitlines()
                if "= Conv1D(" in line
            }
            assert used <= CONV1D_MODULES, file
    assert users == {name.replace("openai-gpt", "openai") for name in CONV1D_MODELS}


def square_gpt(folder: Path, *, transposed: bool, **config: object) -> Base:
    wide = (4, 12) if transposed else (12, 4)
    return reader.read(
        base(
            folder,
            {
                "h.0.attn.c_attn.weight": tensor(np.zeros(wide, np.float32)),
                "h.0.attn.c_attn.bias": tensor(np.zeros(12, np.float32)),
                "h.0.attn.c_proj.weight": tensor(np.zeros((4, 4), np.float32)),
                "h.0.attn.c_proj.bias": tensor(np.zeros(4, np.float32)),
            },
            **config,
        )
    )


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("config", [{"model_type": "unheard_of"}, {"model_type": None}])
def test_biases_tell_the_orientation_of_an_unknown_model(
    config: dict[str, Any],
    tmp_path: Path,
    *,
    transposed: bool,
) -> None:
    found = square_gpt(tmp_path, transposed=transposed, **config)
    (place,) = locate(found, target("h.0.attn.c_proj"))
    assert place.transposed is transposed


def layers(folder: Path, config: dict[str, Any], **shapes: tuple[int, ...]) -> Base:
    """Write a base of layers, each (rows, columns) with a bias of the third size, if it has one."""
    tensors = {}
    for name, (rows, columns, *bias) in shapes.items():
        tensors[f"{name}.weight"] = tensor(np.zeros((rows, columns), np.float32))
        for size in bias:
            tensors[f"{name}.bias"] = tensor(np.zeros(size, np.float32))
    return reader.read(base(folder, tensors, **config))


UNKNOWN: list[dict[str, Any]] = [{"model_type": None}, {"model_type": "unheard_of"}]


@pytest.mark.parametrize("config", UNKNOWN)
@pytest.mark.parametrize("name", ["mix", "c_proj"])
def test_the_bias_of_a_layer_tells_its_orientation(
    config: dict[str, Any], name: str, tmp_path: Path
) -> None:
    shapes = {"other": (2, 3, 2), "more": (2, 3, 3)}  # whatever they say
    for folder, bias, turned in (("1", 4, False), ("2", 6, True)):
        found = layers(tmp_path / folder, config, **shapes, **{name: (4, 6, bias)})
        (place,) = locate(found, target(name))
        assert place.transposed is turned


@pytest.mark.parametrize("config", UNKNOWN)
@pytest.mark.parametrize("name", ["mix", "c_proj"])
@pytest.mark.parametrize("shape", [(4, 4), (4, 6)])
def test_without_a_bias_it_is_no_conv1d(
    config: dict[str, Any], name: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    found = layers(tmp_path, config, c_attn=(4, 12, 12), **{name: shape})
    (place,) = locate(found, replace(target(name), fan_in_fan_out=True))
    assert not place.transposed


@pytest.mark.parametrize("config", UNKNOWN)
def test_a_square_weight_is_that_of_a_linear_layer_if_nothing_else_is_said(
    config: dict[str, Any], tmp_path: Path
) -> None:
    found = layers(tmp_path, config, mix=(4, 4, 4), head=(2, 4, 2), norm=(4, 4), bare=(2, 3))
    (place,) = locate(found, target("mix"))
    assert not place.transposed
    assert [name for name in sorted(found.tensors) if is_assumed(found, name)] == ["mix.weight"]


def test_nothing_is_assumed_where_a_model_or_modules_of_the_name_tell(tmp_path: Path) -> None:
    for folder, config in (("1", {"model_type": "unheard_of"}), ("2", {"model_type": "llama"})):
        found = square_gpt(tmp_path / folder, transposed=True, **config)
        assert not any(is_assumed(found, name) for name in found.tensors)


@pytest.mark.parametrize("config", UNKNOWN)
@pytest.mark.parametrize(
    ("name", "turned", "other"),
    [
        ("mix", False, (4, 12, 12)),
        ("mix", True, (12, 4, 12)),
        ("mix", True, (4, 4)),
        ("c_proj", False, (4, 4)),
        ("c_proj", True, (4, 12, 12)),
    ],
)
def test_a_square_weight_that_may_be_that_of_a_conv1d_is_refused(
    config: dict[str, Any], name: str, *, turned: bool, other: tuple[int, ...], tmp_path: Path
) -> None:
    found = layers(tmp_path, config, other=other, **{name: (4, 4, 4)})
    with pytest.raises(BaseError, match=f"{name}.*nothing tells"):
        locate(found, replace(target(name), fan_in_fan_out=turned))


def test_what_transformers_knows_needs_no_vote(tmp_path: Path) -> None:
    found = layers(tmp_path, {"model_type": "llama"}, mix=(4, 4, 4), other=(4, 12, 12))
    (place,) = locate(found, replace(target("mix"), fan_in_fan_out=True))
    assert not place.transposed


def test_nearest_names_are_offered(tmp_path: Path) -> None:
    found = with_tensors(tmp_path, *(f"model.layers.{n}.self_attn.q_proj.weight" for n in range(4)))
    near = nearest(found, "model.layers.7.self_attn.q_proj.weight")
    assert near
    assert all(name.endswith("q_proj.weight") for name in near)
    assert nearest(found, "xyz") == []
