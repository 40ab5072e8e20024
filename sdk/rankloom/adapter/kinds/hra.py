"""HRA (arXiv 2405.17484): directions of Householder reflections, ``<module>.hra_u`` (in, r)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.parts import broken, misshapen, read_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.parts import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.finding import Finding
    from rankloom.tensorfile.header import TensorEntry


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    options = {"gram_schmidt": config.options["apply_GS"]}

    def build(module: str, parts: Parts) -> Iterator[Target | Finding]:
        shape, rank = parts["u"].shape, config.options["r"]
        if len(shape) != 2:
            yield misshapen(module, parts, "(in, r)")
        elif shape[1] != rank:
            yield broken("TEN004", module, f"has {shape[1]} directions, but the config says {rank}")
        else:
            yield Target(module, "hra", Computed("hra", parts, options, needs_base=True))

    return read_parts(tensors, {"u": ".hra_u"}, build)


KIND = Kind(
    "HRA",
    _read,
    fields={"r": Field(checks.rank, 8), "apply_GS": Field(checks.flag, default=False)},
)
