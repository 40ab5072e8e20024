"""Tiny random bases of every architecture, each built once."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
import transformers

from acceptance import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

VOCABULARY = 40
WIDTH = 16


@dataclass(frozen=True)
class Base:
    """One architecture, and ends of names of the layers that adapters are put on.

    Attributes:
        make: builds the model, with random weights.
        inputs: what it is run on.
        linear: linear layers (or ``Conv1D``) of attention and feedforward.
        feedforward: those of the feedforward among them.
        embedding: an embedding.
        head: the output layer.
        norm: a normalisation layer.
        conv: convolutions, each with its sort.
        parameters: parameters that no module of its own has, such as those of all experts.
        bias: the linear layers have biases.
        conv1d: they are transformers' ``Conv1D``.
        scaled: the embedding multiplies what it looks up.
        subclassed: the linear layers are of a class of the model's own.
        tied: the head is the embedding.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, torch.Tensor]]
    linear: tuple[str, ...] = ()
    feedforward: tuple[str, ...] = ()
    embedding: str = ""
    head: str = ""
    norm: str = ""
    conv: dict[str, str] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    bias: bool = False
    conv1d: bool = False
    scaled: bool = False
    subclassed: bool = False
    tied: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is no transformers model."""
        return self.make.__module__ == "acceptance.plain"


def _ids() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.arange(14).view(2, 7) * 5 % VOCABULARY}


def _both_ids() -> dict[str, torch.Tensor]:
    ids = _ids()["input_ids"]
    return {"input_ids": ids, "decoder_input_ids": ids.flip(1)}


def _wave(*shape: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(shape).numel())).mul(0.37).sin().view(shape)


def _pixels() -> dict[str, torch.Tensor]:
    return {"pixel_values": _wave(2, 3, 8, 8)}


SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
IDS = {"pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2}


def _causal(kind: str, **options: Any) -> Callable[[], nn.Module]:  # noqa: ANN401 - of a config
    options = SIZES | IDS | options
    return lambda: transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(kind, **options)
    )


def _model(name: str, **options: Any) -> Callable[[], nn.Module]:  # noqa: ANN401 - of a config
    def make() -> nn.Module:
        kind = getattr(transformers, name)
        return kind(kind.config_class(**options))

    return make


def _llama(kind: str, **options: Any) -> Base:  # noqa: ANN401 - of a config
    return Base(
        make=_causal(kind, num_key_value_heads=1, **options),
        inputs=_ids,
        linear=("q_proj", "v_proj", "down_proj"),
        feedforward=("down_proj",),
        embedding="embed_tokens",
        head="lm_head",
        norm="input_layernorm",
        tied=bool(options.get("tie_word_embeddings")) or kind == "gemma",
        bias=kind.startswith("qwen2"),
    )


_LAYERS = {
    name: SIZES[name]
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
}
_EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
_FUSED = {"feedforward": ("dense_4h_to_h",), "linear": ("query_key_value", "dense_4h_to_h")}

BASES: dict[str, Base] = {
    "llama": _llama("llama"),
    "llama_tied": _llama("llama", tie_word_embeddings=True),
    "mistral": _llama("mistral"),
    "qwen2": _llama("qwen2"),
    "gemma": replace(_llama("gemma", head_dim=8), scaled=True),
    "mixtral": replace(
        _llama("mixtral", num_local_experts=3),
        linear=("q_proj", "v_proj"),
        feedforward=("v_proj",),
        parameters=_EXPERTS,
    ),
    "qwen2_moe": replace(
        _llama(
            "qwen2_moe",
            num_experts=3,
            num_experts_per_tok=2,
            moe_intermediate_size=8,
            shared_expert_intermediate_size=12,
        ),
        parameters=_EXPERTS,
    ),
    "phi": replace(
        _llama("phi"),
        linear=("q_proj", "dense", "fc2"),
        feedforward=("fc2",),
        bias=True,
    ),
    "phi3": replace(_llama("phi3"), linear=("qkv_proj", "o_proj", "down_proj")),
    "gpt2": Base(
        make=_causal("gpt2"),
        inputs=_ids,
        linear=("c_attn", "mlp.c_proj"),
        feedforward=("mlp.c_proj",),
        embedding="wte",
        head="lm_head",
        norm="ln_1",
        bias=True,
        conv1d=True,
        tied=True,
    ),
    "gpt_neox": Base(
        make=_causal("gpt_neox"),
        inputs=_ids,
        embedding="embed_in",
        head="lm_head",
        norm="input_layernorm",
        bias=True,
        **_FUSED,
    ),
    "falcon": Base(
        make=_causal("falcon"),
        inputs=_ids,
        embedding="word_embeddings",
        head="lm_head",
        norm="input_layernorm",
        subclassed=True,
        tied=True,
        **_FUSED,
    ),
    "bloom": Base(
        make=_causal("bloom"),
        inputs=_ids,
        embedding="word_embeddings",
        head="lm_head",
        norm="input_layernorm",
        bias=True,
        tied=True,
        **_FUSED,
    ),
    "opt": Base(
        make=_causal("opt", ffn_dim=24, word_embed_proj_dim=WIDTH, pad_token_id=0),
        inputs=_ids,
        linear=("q_proj", "out_proj", "fc2"),
        feedforward=("fc2",),
        embedding="embed_tokens",
        head="lm_head",
        norm="self_attn_layer_norm",
        bias=True,
        tied=True,
    ),
    "t5": Base(
        make=_model(
            "T5ForConditionalGeneration",
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            d_kv=8,
            d_ff=24,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=0,
        ),
        inputs=_both_ids,
        linear=("q", "v", "wo"),
        feedforward=("wo",),
        embedding="shared",
        head="lm_head",
        norm="layer_norm",
        tied=True,
    ),
    "bert": Base(
        make=_model("BertForSequenceClassification", **SIZES),
        inputs=_ids,
        linear=("query", "value", "output.dense"),
        feedforward=("output.dense",),
        embedding="word_embeddings",
        head="classifier",
        norm="output.LayerNorm",
        bias=True,
    ),
    "roberta": Base(
        make=_model("RobertaForTokenClassification", **SIZES),
        inputs=_ids,
        linear=("query", "value", "output.dense"),
        feedforward=("output.dense",),
        embedding="word_embeddings",
        head="classifier",
        norm="output.LayerNorm",
        bias=True,
    ),
    "vit": Base(
        make=_model("ViTForImageClassification", image_size=8, patch_size=4, **_LAYERS),
        inputs=_pixels,
        linear=("q_proj", "v_proj", "fc2"),
        feedforward=("fc2",),
        head="classifier",
        norm="layernorm_before",
        conv={"projection": "2d"},
        bias=True,
    ),
    "clip": Base(
        make=_model(
            "CLIPModel",
            projection_dim=8,
            text_config=SIZES | {"eos_token_id": 2},
            vision_config={"image_size": 8, "patch_size": 4} | _LAYERS,
        ),
        inputs=lambda: _ids() | _pixels(),
        linear=("q_proj", "v_proj", "fc2"),
        feedforward=("fc2",),
        embedding="token_embedding",
        head="text_projection",
        norm="layer_norm1",
        conv={"patch_embedding": "2d"},
        bias=True,
    ),
    "whisper": Base(
        make=_model(
            "WhisperForConditionalGeneration",
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            num_mel_bins=4,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            max_source_positions=8,
            max_target_positions=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        ),
        inputs=lambda: {
            "input_features": _wave(2, 4, 16),
            "decoder_input_ids": _ids()["input_ids"],
        },
        linear=("q_proj", "v_proj", "fc2"),
        feedforward=("fc2",),
        embedding="embed_tokens",
        head="proj_out",
        norm="self_attn_layer_norm",
        bias=True,
        tied=True,
    ),
    "convolutions": Base(
        make=plain.Convolutions,
        inputs=lambda: {"image": _wave(2, 4, 4, 4)},
        linear=("head",),
        feedforward=("head",),
        norm="norm",
        conv={"one": "1x1", "conv": "2d", "grouped": "grouped", "line": "1d", "cube": "3d"},
        bias=True,
    ),
    "attention": Base(
        make=plain.Attention,
        inputs=lambda: {"x": _wave(2, 5, 8)},
        linear=("first",),
        feedforward=("first",),
        head="head",
        norm="norm",
        bias=True,
    ),
    "turned": Base(
        make=plain.Turned,
        inputs=lambda: {"x": _wave(2, 5, 8)},
        linear=("expand", "shrink"),
        feedforward=("shrink",),
        head="head",
        norm="norm",
        bias=True,
        conv1d=True,
    ),
    "bag": Base(
        make=plain.Bag,
        inputs=lambda: {"ids": torch.arange(14).view(2, 7) * 3 % 20},
        linear=("lin",),
        feedforward=("lin",),
        embedding="emb",
        head="head",
        norm="norm",
        parameters=("mixer.matrix",),
        bias=True,
    ),
}


def settle(model: nn.Module) -> nn.Module:
    """Make a model ready to be asked in float64, which its experts can only be one by one."""
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    return model.eval()


@functools.cache
def model(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a base whose values ``dtype`` can hold, in float32; nobody may change it."""
    torch.manual_seed(sum(map(ord, name)))
    made = settle(BASES[name].make())
    with torch.no_grad():
        for parameter in made.parameters():
            # Neither biases of zero nor norms of one may hide what multiplies them.
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
            parameter.copy_(parameter.to(dtype))
    return made
