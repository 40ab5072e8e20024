"""What serving engines make of an adapter's folder, restated from their sources.

vLLM 0.33.0: ``lora/peft_helper.py`` (fields, legality, scale by module) and ``lora/utils.py``
(names). SGLang 0.5 and llama.cpp: the scale is ``lora_alpha / r`` whatever the patterns say, and
SGLang wants the tensors' rank to be ``r``.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

if TYPE_CHECKING:
    from pathlib import Path

    import torch

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_REFUSED = (
    *("use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication"),
    *("use_bdlora", "use_qalora"),
)
_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


def vllm(folder: Path, *, max_lora_rank: int) -> dict[str, torch.Tensor]:
    """Return the delta that vLLM adds to each module; fail where it would refuse the folder."""
    config = _config(folder)
    assert not [name for name in _REFUSED if config.get(name)]
    assert set(config.get("modules_to_save") or []) <= {"classifier", "score"}
    assert config.get("bias", "none") == "none"
    init = config.get("init_lora_weights", True)
    assert not isinstance(init, str) or init.lower() in _INITS
    patterns = config.get("rank_pattern") or {}
    assert max([config["r"], *patterns.values()]) <= max_lora_rank
    deltas = {}
    for module, (a, b) in _factors(folder).items():
        rank = _pattern(patterns, module, config["r"])
        alpha = _pattern(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        deltas[module] = scale * (b @ a)
    return deltas


def plain(folder: Path) -> dict[str, torch.Tensor]:
    """Return the delta of an engine that reads ``r`` and ``lora_alpha`` only."""
    config = _config(folder)
    deltas = {}
    for module, (a, b) in _factors(folder).items():
        assert a.shape[0] == b.shape[1] == config["r"], module
        deltas[module] = config["lora_alpha"] / config["r"] * (b @ a)
    return deltas


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    assert isinstance(config["target_modules"], list)
    assert isinstance(config["lora_alpha"], int)  # Ollama reads nothing else
    return config


def _pattern(pattern: dict[str, Any], module: str, default: float) -> float:
    found = (value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module))
    return next(found, default)


def _factors(folder: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    found: dict[str, dict[bool, torch.Tensor]] = {}
    for key, value in load_file(folder / "adapter_model.safetensors").items():
        module, is_a = _parsed(key)
        found.setdefault(module, {})[is_a] = value.double().flatten(1)
    return {module: (pair[True], pair[False]) for module, pair in found.items()}


def _parsed(key: str) -> tuple[str, bool]:
    assert key.startswith("base_model.model.")
    parts = key.split(".")
    if parts[-1] == "weight" and parts[-2] in {"lora_A", "lora_B"}:
        return ".".join(parts[2:-2]), parts[-2] == "lora_A"
    assert parts[-1] in {"lora_embedding_A", "lora_embedding_B"}, key
    return ".".join(parts[2:-1]), parts[-1] == "lora_embedding_A"
