"""The ``adapter_config.json`` of a composition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rankloom.compose.forms import Form

AGREED = ("task_type", "revision")
"""Fields that describe the base, not the change; kept if the adapters agree on them."""


def peft_config(forms: Sequence[Form], parents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a LoRA config under which every scale is exactly 1, to whatever reads it.

    The scale is alpha / r, so alpha is the rank, and a pattern of exceptions, which some engines
    do not read, is not needed. ``target_modules`` lists full names: leaf names would make PEFT add
    untouched LoRA layers to modules that no adapter changes.

    Args:
        forms: how each change is kept, all of one rank.
        parents: configs of the adapters composed, for the fields that describe the base.
    """
    rank = max((found for form in forms for found in form.ranks.values()), default=1)
    tokens = {module: list(rows) for form in forms for module, rows in form.tokens.items()}
    return {
        **{field: _agreed(field, parents) for field in AGREED},
        "base_model_name_or_path": _first("base_model_name_or_path", parents),
        "fan_in_fan_out": bool(_first("fan_in_fan_out", parents)),
        "peft_type": "LORA",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": {},
        "alpha_pattern": {},
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


def _listed(field: str, forms: Iterable[Form]) -> list[str]:
    return sorted({form.lists[field] for form in forms if field in form.lists})


def _agreed(field: str, parents: Sequence[Mapping[str, Any]]) -> Any:  # noqa: ANN401 - JSON
    values = [parent.get(field) for parent in parents]
    return values[0] if all(value == values[0] for value in values) else None


def _first(field: str, parents: Sequence[Mapping[str, Any]]) -> Any:  # noqa: ANN401 - JSON
    return next((parent[field] for parent in parents if parent.get(field)), None)
