"""LoKr (LyCORIS, arXiv 2309.14859): the Kronecker product of two matrices, each full or factored.

Keys ``<module>.lokr_w1`` or ``lokr_w1_a`` + ``lokr_w1_b``; ``lokr_w2``, or ``lokr_w2_a`` +
``lokr_w2_b``, with ``use_effective_conv2d`` around a core ``lokr_t2``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import read_layouts

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
    rank = config.by_module("r", "rank_pattern")
    alpha = config.by_module("alpha", "alpha_pattern")

    def build(parts: Parts) -> Iterator[Target]:
        options = {"scale": alpha(parts.module) / rank(parts.module)}
        yield Target(parts.module, "lokr", Computed("lokr", parts.tensors, options))

    return read_layouts(tensors, _LAYOUTS, build, known=lambda module: {"r": rank(module)})


KIND = Kind(
    "LOKR",
    _read,
    fields={
        "r": Field(checks.rank, 8),
        "alpha": Field(checks.alpha, 8),
        "rank_pattern": Field(checks.rank_pattern),
        "alpha_pattern": Field(checks.alpha_pattern),
    },
    training={
        "rank_dropout": "acts in training only",
        "rank_dropout_scale": "acts in training only",
        "module_dropout": "acts in training only",
        "use_effective_conv2d": "the names of the tensors tell",
        "decompose_both": "the names of the tensors tell",
        "decompose_factor": "the shapes of the tensors tell",
    },
)
