"""The ``adapter_config.json`` of a composition."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AGREED = ("task_type", "revision")
"""Fields that describe the base, not the change; kept if the adapters agree on them."""


def peft_config(ranks: Mapping[str, int], parents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a LoRA config under which every module's scale is exactly 1.

    The scale is alpha / r, so alpha equals the rank everywhere: ``lora_alpha = r`` is the largest
    rank, and a module of another rank has an entry in both patterns. Pattern keys are regular
    expressions to PEFT, so they are anchored and escaped. ``target_modules`` lists full names:
    leaf names would make PEFT add untouched LoRA layers to modules that no adapter changes.

    Args:
        ranks: rank by module name.
        parents: configs of the adapters composed, for the fields that describe the base.
    """
    largest = max(ranks.values())
    pattern = {
        f"^{re.escape(module)}": rank for module, rank in sorted(ranks.items()) if rank != largest
    }
    return {
        **{field: _agreed(field, parents) for field in AGREED},
        "base_model_name_or_path": _first("base_model_name_or_path", parents),
        "fan_in_fan_out": bool(_first("fan_in_fan_out", parents)),
        "peft_type": "LORA",
        "inference_mode": True,
        "r": largest,
        "lora_alpha": largest,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }


def _agreed(field: str, parents: Sequence[Mapping[str, Any]]) -> Any:  # noqa: ANN401 - JSON
    values = [parent.get(field) for parent in parents]
    return values[0] if all(value == values[0] for value in values) else None


def _first(field: str, parents: Sequence[Mapping[str, Any]]) -> Any:  # noqa: ANN401 - JSON
    return next((parent[field] for parent in parents if parent.get(field)), None)
