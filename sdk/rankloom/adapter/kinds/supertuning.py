"""Supertuning: the largest or smallest elements of W are trained, perhaps with LoRA besides.

Keys ``<module>.supertuning_indices`` (row by row) and ``supertuning_values`` (n,), perhaps
``supertuning_lora_A.weight`` (r, in), ``supertuning_lora_B.weight`` (out, r).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.field_values import optional
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import by_module, read_layouts
from rankloom.adapter.kinds.shared import lacks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.tensorfile.header import TensorEntry

_SPARSE = {"supertuning_indices": "n", "supertuning_values": "n"}
_FACTORS = {"supertuning_lora_A.weight": "r in", "supertuning_lora_B.weight": "out r"}


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    rank, alpha = config.options["r"], config.options["lora_alpha"]
    options = {"scale": (alpha or 0.0) / rank if rank else 0.0}
    if not by_module(tensors, ["supertuning_indices"]):
        return lacks(tensors, "save_precomputed_indices", "supertuning_indices")

    def build(parts: Parts) -> Iterator[Target]:
        yield Target(parts.module, "supertuning", Computed("supertuning", parts.tensors, options))

    return read_layouts(
        tensors,
        [_SPARSE | _FACTORS if rank else _SPARSE],
        build,
        known=lambda _: {"r": rank} if rank else {},
        indices=frozenset(["supertuning_indices"]),
    )


KIND = Kind(
    "SUPERTUNING",
    _read,
    fields={
        "r": Field(optional(checks.rank)),
        "lora_alpha": Field(optional(checks.alpha)),
    },
    training={
        "sparsity": "how many elements were trained; the file holds them",
        "select_top": "which elements were trained; the file holds their indices",
        "lora_dropout": "acts in training only",
        "save_precomputed_indices": "the file tells whether they were saved",
    },
)
