"""DEFT and PaRa: a subspace of the base's rows is removed, and trained directions are put in.

Keys ``<module>.deft_P`` (out, r), and without ``para`` ``deft_R`` (r, in).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.field_values import choice, optional
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import read_layouts
from rankloom.adapter.kinds.parts import broken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.finding import Finding
    from rankloom.tensorfile.header import TensorEntry


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    alpha = config.options["alpha"]
    layout = {"deft_P": "out r"} | ({} if config.options["para"] else {"deft_R": "r in"})

    def build(parts: Parts) -> Iterator[Target | Finding]:
        rank = min(config.options["r"], parts.sizes["out"])
        if parts.sizes["r"] != rank:
            yield broken("TEN004", parts.module, f"has rank {parts.sizes['r']}, not {rank}")
            return
        options = {
            "method": config.options["decomposition_method"],
            "scale": alpha / rank if alpha else 1.0,
        }
        change = Computed("deft", parts.tensors, options, needs_base=True)
        yield Target(parts.module, "deft", change)

    return read_layouts(tensors, [layout], build)


KIND = Kind(
    "DEFT",
    _read,
    fields={
        "r": Field(checks.rank, 8),
        "decomposition_method": Field(choice("relu", "qr"), "relu"),
        "alpha": Field(optional(checks.alpha)),
        "para": Field(checks.flag, default=False),
    },
    training={
        "init_scale": "how the tensors began; the file holds how they ended",
        "deft_dropout": "acts in training only",
    },
)
