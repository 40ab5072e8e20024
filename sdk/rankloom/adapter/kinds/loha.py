"""LoHa (FedPara, arXiv 2108.06098): the elementwise product of two low-rank matrices.

Keys ``<module>.hada_w1_a``, ``hada_w1_b``, ``hada_w2_a``, ``hada_w2_b``, and with
``use_effective_conv2d`` the cores ``hada_t1``, ``hada_t2`` of a convolution.
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

_MATRIX = {
    "hada_w1_a": "out r",
    "hada_w1_b": "r in",
    "hada_w2_a": "out r",
    "hada_w2_b": "r in",
}
_KERNEL = {
    **dict.fromkeys(["hada_w1_a", "hada_w2_a"], "r out"),
    **dict.fromkeys(["hada_w1_b", "hada_w2_b"], "r in"),
    **dict.fromkeys(["hada_t1", "hada_t2"], "r r height width"),
}


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    rank = config.by_module("r", "rank_pattern")
    alpha = config.by_module("alpha", "alpha_pattern")

    def build(parts: Parts) -> Iterator[Target]:
        options = {"scale": alpha(parts.module) / rank(parts.module)}
        formula = "loha_kernel" if "hada_t1" in parts.tensors else "loha"
        yield Target(parts.module, "loha", Computed(formula, parts.tensors, options))

    layouts = [_MATRIX, _KERNEL]
    return read_layouts(tensors, layouts, build, known=lambda module: {"r": rank(module)})


KIND = Kind(
    "LOHA",
    _read,
    fields={
        "r": Field(checks.rank, 8),
        "alpha": Field(checks.alpha, 8),
        "rank_pattern": Field(checks.rank_pattern),
        "alpha_pattern": Field(checks.alpha_pattern),
    },
    training={
        "rank_dropout": "acts in training only",
        "module_dropout": "acts in training only",
        "use_effective_conv2d": "the names of the tensors tell",
    },
)
