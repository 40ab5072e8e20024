"""GraLoRA (arXiv 2505.20355): k × k blocks of low rank, and ordinary factors with ``hybrid_r``.

Keys ``<module>.gralora_A`` (k, in/k, r), ``gralora_B`` (k, r, out/k), perhaps
``gralora_A_general.weight`` (h, in), ``gralora_B_general.weight`` (out, h).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.field_values import whole
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import read_layouts
from rankloom.adapter.kinds.parts import misshapen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.finding import Finding
    from rankloom.tensorfile.header import TensorEntry

_BLOCKS = {"gralora_A": "k width r", "gralora_B": "k r height"}
_GENERAL = {"gralora_A_general.weight": "h in", "gralora_B_general.weight": "out h"}


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    rank, more, count = (config.options[name] for name in ("r", "hybrid_r", "gralora_k"))
    options = {"scale": config.options["alpha"] / (rank + more)}

    def build(parts: Parts) -> Iterator[Target | Finding]:
        shape = parts.sizes["height"] * count, parts.sizes["width"] * count
        general = parts.sizes.get("out", shape[0]), parts.sizes.get("in", shape[1])
        if rank % count or general != shape:
            yield misshapen(parts.module, parts.tensors, f"{shape} in {count} × {count} blocks")
            return
        change = Computed("gralora", parts.tensors, options, shape=shape)
        yield Target(parts.module, "gralora", change)

    return read_layouts(
        tensors,
        [_BLOCKS | _GENERAL if more else _BLOCKS],
        build,
        known=lambda _: {"r": rank, "k": count, "h": more},
    )


KIND = Kind(
    "GRALORA",
    _read,
    fields={
        "r": Field(checks.rank, 32),
        "hybrid_r": Field(whole(0, checks.MAX_RANK), 0),
        "alpha": Field(checks.alpha, 64),
        "gralora_k": Field(whole(1), 2),
    },
    training={"gralora_dropout": "acts in training only"},
    export="yes",
)
