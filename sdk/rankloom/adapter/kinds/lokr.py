"""LoKr (LyCORIS, arXiv 2309.14859): the Kronecker product of two matrices, each full or factored.

Keys ``<module>.lokr_w1`` or ``lokr_w1_a`` + ``lokr_w1_b``; ``lokr_w2``, or ``lokr_w2_a`` +
``lokr_w2_b``, with ``use_effective_conv2d`` around a core ``lokr_t2``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds.kind import Kind
from rankloom.adapter.kinds.layout import read_layouts
from rankloom.adapter.kinds.lycoris import FIELDS, TRAINING, ranks_and_scales

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.tensorfile.header import TensorEntry

_FIRST = [{"lokr_w1": "l m"}, {"lokr_w1_a": "l r", "lokr_w1_b": "r m"}]
_SECOND = [
    {"lokr_w2": "k n *"},
    {"lokr_w2_a": "k r", "lokr_w2_b": "r n"},
    {"lokr_t2": "r r height width", "lokr_w2_a": "r k", "lokr_w2_b": "r n"},
]
_LAYOUTS = [first | second for first in _FIRST for second in _SECOND]


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    rank, scale = ranks_and_scales(config)

    def build(parts: Parts) -> Iterator[Target]:
        options = {"scale": scale(parts.module)}
        yield Target(parts.module, "lokr", Computed("lokr", parts.tensors, options))

    return read_layouts(tensors, _LAYOUTS, build, known=lambda module: {"r": rank(module)})


KIND = Kind(
    "LOKR",
    _read,
    fields=FIELDS,
    training={
        **TRAINING,
        "rank_dropout_scale": "acts in training only",
        "decompose_both": "the names of the tensors tell",
        "decompose_factor": "the shapes of the tensors tell",
    },
)
