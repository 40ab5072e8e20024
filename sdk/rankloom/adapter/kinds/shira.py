"""SHiRA (arXiv 2406.13175): single elements of the weight.

Keys ``<module>.shira_indices`` (2, n), rows and columns, and ``shira_weight`` (n,).
"""

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
        yield Target(parts.module, "shira", Computed("shira", parts.tensors))

    layout = {"shira_indices": "2 n", "shira_weight": "n"}
    return read_layouts(tensors, [layout], build, indices=frozenset(["shira_indices"]))


KIND = Kind(
    "SHIRA",
    _read,
    training={
        "r": "how many elements were trained; the file holds them",
        "mask_type": "which elements were trained; the file holds their indices",
        "random_seed": "which elements were trained; the file holds their indices",
    },
)
