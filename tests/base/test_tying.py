"""What is tied is what transformers ties, and a config that says otherwise is believed by it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as t
from safetensors.torch import load_file, save_file

from base_cases import as_value
from rankloom.base import reader, tying
from rankloom.base.locate import locate
from rankloom.errors import BaseError
from tiny_models import DECODER, GPT, MODELS, VISION, build, randomised

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own, about tiny configs


def _llava(*, outer: bool | None) -> t.PreTrainedModel:
    ties = {} if outer is None else {"tie_word_embeddings": outer}
    text = t.Qwen2Config(**DECODER, tie_word_embeddings=True)
    vision = t.SiglipVisionConfig(**VISION)
    config = t.LlavaConfig(text_config=text, vision_config=vision, image_token_index=5, **ties)
    return t.LlavaForConditionalGeneration(config)


def _captioner() -> t.PreTrainedModel:
    decoder = t.GPT2Config(**GPT, add_cross_attention=True)
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        t.ViTConfig(**VISION), decoder, decoder_start_token_id=0, pad_token_id=2
    )
    return t.VisionEncoderDecoderModel(config)


COMPOSED: dict[str, Callable[[], t.PreTrainedModel]] = {
    "llava, the text's config ties": lambda: _llava(outer=None),
    "llava, both configs tie": lambda: _llava(outer=True),
    "captioner": _captioner,
}
ALL = [*MODELS, *COMPOSED]


def make(kind: str) -> t.PreTrainedModel:
    return build(kind) if kind in MODELS else randomised(COMPOSED[kind]())


def groups(pairs: dict[str, str]) -> set[frozenset[str]]:
    found: dict[str, set[str]] = {}
    for name, source in pairs.items():
        found.setdefault(source, {source}).add(name)
    return {frozenset(group) for group in found.values()}


@pytest.mark.parametrize("kind", ALL)
def test_ties_are_those_of_the_model(kind: str, tmp_path: Path) -> None:
    model = make(kind)
    tied = groups(model.all_tied_weights_keys)
    model.save_pretrained(tmp_path / "new", save_original_format=False)
    assert groups(tying.ties(reader.read(tmp_path / "new"))) == tied
    model.save_pretrained(tmp_path / "old")
    assert len(groups(tying.ties(reader.read(tmp_path / "old")))) == len(tied)


@pytest.mark.parametrize("kind", ALL)
def test_what_is_untied_loads_as_it_was_written(kind: str, tmp_path: Path) -> None:
    make(kind).save_pretrained(tmp_path)
    base = reader.read(tmp_path)
    values = load_file(tmp_path / "model.safetensors")
    ties = tying.ties(base)
    for number, (name, source) in enumerate(ties.items()):
        values[name] = values[source] + number + 1
    save_file(values, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(tying.untied(base.config)))
    again = getattr(t, base.config["architectures"][0]).from_pretrained(tmp_path)
    untied = reader.read(tmp_path)
    assert tying.ties(untied) == {}
    state = list(again.state_dict().values())
    for name in ties.keys() | set(ties.values()):
        assert any(torch.equal(value, values[name]) for value in state), name


def test_heads_with_values_of_their_own_are_not_tied(tmp_path: Path) -> None:
    make("llama-tied").save_pretrained(tmp_path)
    values = load_file(tmp_path / "model.safetensors")
    embedding = values["model.embed_tokens.weight"]
    for head, ties in ((embedding.clone(), 1), (embedding + 1, 0)):
        save_file({**values, "lm_head.weight": head}, tmp_path / "model.safetensors")
        assert len(tying.ties(reader.read(tmp_path))) == ties


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({"model_type": "gpt2"}, True),
        ({"model_type": "gpt2", "tie_word_embeddings": None}, True),
        ({"model_type": "gpt2", "tie_word_embeddings": False}, False),
        ({"model_type": "llama"}, False),
        ({"model_type": "llama", "tie_word_embeddings": True}, True),
        ({"model_type": "t5", "tie_word_embeddings": False}, True),
        ({"model_type": "unheard_of"}, False),
        ({"model_type": "unheard_of", "tie_word_embeddings": True}, True),
        ({"model_type": "llava", "text_config": {"tie_word_embeddings": True}}, True),
        ({"model_type": "llava", "text_config": {"model_type": "gemma"}}, True),
        ({"model_type": "llava", "text_config": {"model_type": "llama"}}, False),
    ],
)
def test_what_a_config_says_and_what_it_leaves_out(config: dict[str, Any], *, tied: bool) -> None:
    assert tying.is_tied(config) is tied


def test_modules_that_share_their_parameters_are_refused(tmp_path: Path) -> None:
    config = t.DFineConfig(
        encoder_hidden_dim=16, d_model=16, decoder_layers=2, num_queries=4, encoder_layers=1,
        encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_in_channels=[16, 16, 16], decoder_in_channels=[16] * 3,
        num_denoising=0, num_labels=3,
    )  # fmt: skip
    model = t.DFineForObjectDetection(config)
    model.save_pretrained(tmp_path)
    base = reader.read(tmp_path)
    shared = next(name for name in base.tensors if "bbox_embed" in name)
    with pytest.raises(BaseError, match="shared"):
        locate(base, as_value(shared, base.tensors[shared].shape))
