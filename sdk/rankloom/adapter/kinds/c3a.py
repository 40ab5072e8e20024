"""C3A (arXiv 2407.19342): circulant blocks, ``<module>.c3a_kernel`` (out/b, in/b, b)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.field_values import by_pattern, whole
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import read_layouts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.tensorfile.header import TensorEntry


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    size = config.by_module("block_size", "block_size_pattern")

    def build(parts: Parts) -> Iterator[Target]:
        block = parts.sizes["b"]
        shape = parts.sizes["rows"] * block, parts.sizes["columns"] * block
        yield Target(parts.module, "c3a", Computed("c3a", parts.tensors, shape=shape))

    layout = {"c3a_kernel": "rows columns b"}
    return read_layouts(tensors, [layout], build, known=lambda module: {"b": size(module)})


KIND = Kind(
    "C3A",
    _read,
    fields={
        "block_size": Field(whole(1), 256),
        "block_size_pattern": Field(by_pattern(whole(1))),
    },
)
