"""The ``adapter_config.json`` of a composition."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rankloom.errors import UnsupportedAdapterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rankloom.compose.forms import Form

AGREED = ("task_type", "revision")
"""Fields that describe the base, not the change; kept if the adapters agree on them."""


def peft_config(forms: Sequence[Form], parents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a LoRA config under which every scale is exactly 1.

    The scale is alpha / r, so alpha equals the rank everywhere: ``lora_alpha = r`` is the largest
    rank, and a module of another rank has an entry in both patterns. Pattern keys are regular
    expressions to PEFT, so they are anchored and escaped. ``target_modules`` lists full names:
    leaf names would make PEFT add untouched LoRA layers to modules that no adapter changes.

    Args:
        forms: how each change is kept.
        parents: configs of the adapters composed, for the fields that describe the base.

    Raises:
        UnsupportedAdapterError: parameters of which only the base knows the names differ in rank.
    """
    ranks = _ranks(forms)
    largest = max(ranks.values(), default=1)
    pattern = {
        f"^{re.escape(module)}": rank for module, rank in sorted(ranks.items()) if rank != largest
    }
    tokens = {module: list(rows) for form in forms for module, rows in form.tokens.items()}
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
        "target_modules": _listed("target_modules", forms),
        "lora_dropout": 0.0,
        "bias": "all" if _listed("bias", forms) else "none",
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        **{name: found for name in _OPTIONAL if (found := _listed(name, forms))},
        **({"trainable_token_indices": tokens} if tokens else {}),
    }


_OPTIONAL = ("target_parameters", "modules_to_save")


def _ranks(forms: Iterable[Form]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, rank in (pair for form in forms for pair in form.ranks.items()):
        if found.setdefault(name, rank) != rank:
            message = f"PEFT has no form for ranks {found[name]} and {rank} in {name}: only the"
            message += " base tells which parameter has which"
            raise UnsupportedAdapterError(message, hint="apply it to a base instead")
    return found


def _listed(field: str, forms: Iterable[Form]) -> list[str]:
    return sorted({form.lists[field] for form in forms if field in form.lists})


def _agreed(field: str, parents: Sequence[Mapping[str, Any]]) -> Any:  # noqa: ANN401 - JSON
    values = [parent.get(field) for parent in parents]
    return values[0] if all(value == values[0] for value in values) else None


def _first(field: str, parents: Sequence[Mapping[str, Any]]) -> Any:  # noqa: ANN401 - JSON
    return next((parent[field] for parent in parents if parent.get(field)), None)
