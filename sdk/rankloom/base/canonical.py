"""What of a checkpoint is the model: which tensors and which config fields its identity covers.

Two copies of one base may differ in tensors that say nothing: buffers that older versions of
transformers saved, and an output head that is the input embedding once more. Both are left out.
The rules are part of the fingerprint's definition: a change to them is a new version of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BUFFERS = re.compile(
    r"(?:.*\.)?(?:rotary_emb\.inv_freq|(?:embeddings\.)?position_ids|embeddings\.token_type_ids"
    r"|(?:attn|attention)\.masked_bias)"
)
_MASKS = re.compile(r"(?:.*\.)?(?:attn|attention)\.bias")
_HEADS = (
    "lm_head.weight",
    "embed_out.weight",
    "proj_out.weight",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "lm_head.decoder.weight",
    "lm_head.decoder.bias",
    "vocab_projector.weight",
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
)
"""Endings of tensors that transformers ties to another one."""
_SOURCES = (
    "embed_tokens.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "wte.weight",
    "tokens_embed.weight",
    "shared.weight",
    "cls.predictions.bias",
    "lm_head.bias",
)
"""Endings of the tensors that they are tied to."""

_RENAMINGS: tuple[tuple[str, Mapping[str, str]], ...] = (
    (
        "language_model.model.",  # LLaVA, PaliGemma, Gemma 3, Mistral 3, … before transformers 4.52
        {
            "language_model.model.": "model.language_model.",
            "language_model.lm_head.": "lm_head.",
            "vision_tower.": "model.vision_tower.",
            "multi_modal_projector.": "model.multi_modal_projector.",
            "image_newline": "model.image_newline",
        },
    ),
    (
        "visual.",  # Qwen 2 and 2.5 VL before transformers 4.52
        {"visual.": "model.visual.", "model.": "model.language_model."},
    ),
)
"""What is found in older checkpoints of a family, and how its names begin since."""

_SHAPE_FIELDS = frozenset(
    [
        "model_type",
        "vocab_size",
        "type_vocab_size",
        "hidden_size",
        "intermediate_size",
        "embedding_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "n_embd",
        "n_layer",
        "n_head",
        "n_inner",
        "n_positions",
        "d_model",
        "d_ff",
        "d_kv",
        "num_layers",
        "num_decoder_layers",
        "num_heads",
        "encoder_layers",
        "decoder_layers",
        "encoder_ffn_dim",
        "decoder_ffn_dim",
        "num_experts",
        "num_local_experts",
        "n_routed_experts",
        "n_shared_experts",
        "moe_intermediate_size",
        "kv_lora_rank",
        "q_lora_rank",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
        "v_head_dim",
        "image_size",
        "patch_size",
        "num_channels",
    ]
)


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Tell whether a tensor is a buffer that the model computes by itself."""
    # GPT-2 and GPT-NeoX saved their causal masks under the name of a bias; a bias has one axis.
    return bool(_BUFFERS.fullmatch(name)) or (len(shape) == 4 and bool(_MASKS.fullmatch(name)))


def names(found: Iterable[str]) -> dict[str, str]:
    """Return the name under which each tensor counts, by its name in the checkpoint.

    Versions of transformers name the parts of models with several modalities differently; the
    newer names count. A checkpoint that would have one name twice keeps its own.
    """
    kept = {name: name for name in found}
    for mark, renamings in _RENAMINGS:
        if any(name.startswith(mark) for name in kept):
            new = {name: _renamed(name, renamings) for name in kept}
            return new if len(set(new.values())) == len(new) else kept
    return kept


def _renamed(name: str, renamings: Mapping[str, str]) -> str:
    start = next((start for start in renamings if name.startswith(start)), "")
    return renamings[start] + name.removeprefix(start) if start else name


def is_vocabulary(name: str) -> bool:
    """Tell whether a tensor has a row per token: an embedding of tokens, an output head, its bias.

    Args:
        name: its canonical name.
    """
    return _ends(name, (*_HEADS, *_SOURCES))


def tied_candidates(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Return tensors that may repeat another one, with the ones that they may repeat.

    Empty if the config says that nothing is tied.

    Args:
        shapes: shape by name of every tensor of the base.
        config: its config.
    """
    # Files leave the field out where it has the class's default; then the bytes decide.
    if False in _tying(config):
        return {}
    sources = [name for name in shapes if _ends(name, _SOURCES)]
    found = {
        name: tuple(other for other in sources if other != name and shapes[other] == shape)
        for name, shape in shapes.items()
        if _ends(name, _HEADS)
    }
    return {name: others for name, others in found.items() if others}


def _ends(name: str, endings: Iterable[str]) -> bool:
    return any(name == ending or name.endswith("." + ending) for ending in endings)


def _tying(config: Mapping[str, Any]) -> list[Any]:
    inner = config.get("text_config")
    configs = [config, inner] if isinstance(inner, dict) else [config]
    return [found.get("tie_word_embeddings") for found in configs]


def shape_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a config that decide shapes, those of configs within it as well."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            if inner := shape_fields(value):
                found[name] = inner
        elif name in _SHAPE_FIELDS and value is not None:
            found[name] = value
    return found
