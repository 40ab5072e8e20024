"""What each field of PEFT's LoraConfig means for the merged result, as data.

A field is read by us, or it cannot change what the saved tensors mean, or it can: the third sort
must stand at its default unless a kind of :mod:`rankloom.adapter.kinds` claims it. A field that
no table knows must be empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

READ = frozenset(
    [
        "peft_type",
        "base_model_name_or_path",
        "r",
        "lora_alpha",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "init_lora_weights",
        "auto_mapping",
        "megatron_config",
        "megatron_core",
        "task_type",
    ]
)
"""Fields that :mod:`rankloom.adapter.config` reads and checks."""

IGNORED: Mapping[str, str] = {
    "inference_mode": "whether the adapter was frozen while it was saved",
    "lora_dropout": "acts in training only",
    "fan_in_fan_out": "PEFT corrects it by the module it finds, so the base decides",
    "revision": "where the base came from",
    "peft_version": "who wrote the file",
    "eva_config": "how A began; the file holds how it ended",
    "corda_config": "how A and B began; matters with init_lora_weights='corda' only",
    "loftq_config": "how A and B began; matters with init_lora_weights='loftq' only",
    "lora_ga_config": "how A and B began; matters with init_lora_weights='lora_ga' only",
    "merge_weights": "an option of PEFT 0.2 for its own modules",
    "qalora_group_size": "matters on quantised layers only, and the shapes tell",
}
"""Fields that do not change what the saved tensors mean, and why not."""

OPTIONS: Mapping[str, Any] = {
    "bias": "none",
    "modules_to_save": None,
    "use_dora": False,
    "lora_bias": False,
    "trainable_token_indices": None,
    "target_parameters": None,
    "layer_replication": None,
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "use_qalora": False,
    "use_bdlora": None,
    "kasa_config": None,
    "velora_config": None,
    "monteclora_config": None,
    "ensure_weight_tying": False,
    "enable_lora": None,
}
"""Fields that change what the tensors mean, with PEFT's default.

PEFT 0.2.0, 0.3.0, 0.6.2, 0.10.0, 0.13.2, 0.16.0, 0.19.0 and 0.21.2 agree on every one they have.
"""

KNOWN_OF_LORA = frozenset(READ | IGNORED.keys() | OPTIONS.keys())
"""Every field that a config of LORA may have."""

COMMON_READ = frozenset(
    [
        "peft_type",
        "base_model_name_or_path",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "auto_mapping",
        "task_type",
    ]
)
"""Fields of every type of PEFT that :mod:`rankloom.adapter.config` reads and checks."""

COMMON_IGNORED: Mapping[str, str] = {
    "inference_mode": IGNORED["inference_mode"],
    "fan_in_fan_out": IGNORED["fan_in_fan_out"],
    "revision": IGNORED["revision"],
    "peft_version": IGNORED["peft_version"],
    "init_weights": "how the tensors began; the file holds how they ended",
}
"""Fields that do not change what the saved tensors mean in any type besides LORA, and why not."""

COMMON_OPTIONS: Mapping[str, Any] = {"bias": "none", "modules_to_save": None}
"""Fields of every type besides LORA that change what tensors mean, with PEFT's default."""

SAFE_INITS = frozenset(["true", "false", "gaussian", "eva", "orthogonal", "mica"])
"""Values of ``init_lora_weights`` after which the base is what it was."""

FOLDED_INITS = frozenset(["pissa", "olora"])
"""Values after which the base lacks what can be computed from it; a kind does that."""

MUTATING_INITS = ("pissa_niter", "corda", "loftq", "lora_ga")
"""Beginnings of values after which it lacks what depends on chance, on data or on a quantiser."""

REFUSED: Mapping[str, tuple[str, str, str]] = {
    "layer_replication": (
        "CFG009",
        "builds layers that share the weights of others, so no change of one weight is one layer's",
        "repeat the layers in the base first, save it, and train the adapter on that",
    ),
    "alora_invocation_tokens": (
        "CFG012",
        "switches the adapter on behind certain tokens, so its effect is no change of a weight",
        "serve it with an engine that knows aLoRA, beside the unchanged base",
    ),
    "arrow_config": (
        "CFG012",
        "chooses among other adapters token by token, so its effect is no change of a weight",
        "compose the adapters that it chooses from, each with a weight",
    ),
    "enable_lora": (
        "CFG012",
        "adapts parts of a fused layer in the way of PEFT 0.2, which no later version reads",
        "load it with PEFT 0.2 and merge it there",
    ),
}
"""Options that no kind can apply: the rule, why, and what to do instead."""

LIBRARIES = frozenset(["transformers", "diffusers", "timm", "sentence_transformers", "torch"])
"""Libraries whose model class ``auto_mapping`` may name; we never import it, others do."""

PEFT_TYPES = frozenset(
    [
        "PROMPT_TUNING",
        "MULTITASK_PROMPT_TUNING",
        "P_TUNING",
        "PREFIX_TUNING",
        "LORA",
        "ADALORA",
        "ADAMSS",
        "BOFT",
        "ADAPTION_PROMPT",
        "IA3",
        "BEFT",
        "LILY",
        "LOHA",
        "LOKR",
        "OFT",
        "POLY",
        "LN_TUNING",
        "VERA",
        "FROD",
        "PVERA",
        "FOURIERFT",
        "GLORA",
        "XLORA",
        "HRA",
        "VBLORA",
        "UNILORA",
        "CPT",
        "MISS",
        "RANDLORA",
        "ROAD",
        "TRAINABLE_TOKENS",
        "HIRA",
        "SHIRA",
        "C3A",
        "WAVEFT",
        "OSF",
        "DELORA",
        "GRALORA",
        "CARTRIDGE",
        "TINYLORA",
        "PSOFT",
        "PEANUT",
        "SHADOW",
        "SUPERTUNING",
        "DEFT",
        "BONE",
    ]
)
"""Values of ``peft_type`` that PEFT has known."""


def is_empty(value: object) -> bool:
    """Tell whether a value of an unknown field says nothing: null, false, or empty."""
    return value is None or value is False or value in ("", [], {})
