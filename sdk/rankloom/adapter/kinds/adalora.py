"""AdaLoRA (arXiv 2303.10512): factors in the form of a singular value decomposition.

Keys ``<module>.lora_A`` (r, in), ``lora_E`` (r, 1), ``lora_B`` (out, r), without ``.weight``; a
convolution has in · kernel columns. r is ``init_r`` of the config, less what ``rank_pattern``
marks as pruned; the scale keeps the rank that the training began with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.adapter import config_checks as checks
from rankloom.adapter import fields
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.field_values import refuse, whole
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import read_layouts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.tensorfile.header import TensorEntry

_LAYOUT = {"lora_A": "r in", "lora_B": "out r", "lora_E": "r 1"}
_SOFTENING = 1e-5
"""PEFT adds it to the rank that it divides by."""


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    kept = config.options["rank_pattern"]
    first = config.options["init_r"]
    scale = config.options["lora_alpha"] / (first + _SOFTENING)

    def build(parts: Parts) -> Iterator[Target]:
        change = Computed("adalora", parts.tensors, {"scale": scale})
        yield Target(parts.module, "adalora", change)

    return read_layouts(
        tensors, [_LAYOUT], build, known=lambda module: {"r": kept.get(module, first)}
    )


def _masks(name: str, value: Any) -> dict[str, int]:  # noqa: ANN401 - a JSON value
    """Return the rank that is left in each module that has a mask of singular values."""
    if not isinstance(value, dict | None):
        raise refuse(name, value, "an object of lists of true and false")
    found = {}
    for key, mask in (value or {}).items():
        if not isinstance(mask, list) or not all(isinstance(item, bool) for item in mask):
            raise refuse(f"{name}[{key[:40]!r}]", mask, "a list of true and false")
        found[key.rpartition(".lora_E")[0]] = sum(mask)
    return found


KIND = Kind(
    "ADALORA",
    _read,
    fields={
        "init_r": Field(whole(1, checks.MAX_RANK), 12),
        "lora_alpha": Field(checks.alpha, 8),
        "rank_pattern": Field(_masks),
    },
    training={
        **{name: why for name, why in fields.IGNORED.items() if name not in fields.COMMON_IGNORED},
        "r": "AdaLoRA begins at init_r instead",
        "use_rslora": "AdaLoRA does not scale by it",
        "alpha_pattern": "AdaLoRA has one alpha for all modules",
        "init_lora_weights": "how the tensors began; the file holds how they ended",
        "megatron_config": "checked for all types",
        "megatron_core": "checked for all types",
        **dict.fromkeys(
            ["target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "total_step"],
            "when and how ranks were pruned; the tensors are what was left",
        ),
        "orth_reg_weight": "acts in training only",
    },
    fixed={
        name: default
        for name, default in fields.OPTIONS.items()
        if name not in fields.COMMON_OPTIONS
    },
    export="yes",
)
