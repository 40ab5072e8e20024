"""BEFT (arXiv 2509.15974): a vector that is added to the bias, ``<module>.beft_bias`` (1, out)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds.kind import Kind
from rankloom.adapter.kinds.layout import read_layouts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.tensorfile.header import TensorEntry


def _read(_config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    def build(parts: Parts) -> Iterator[Target]:
        change = Computed("beft", parts.tensors, shape=(parts.sizes["out"],))
        yield Target(parts.module, "beft", change, parameter="bias")

    return read_layouts(tensors, [{"beft_bias": "1 out"}], build)


KIND = Kind("BEFT", _read)
