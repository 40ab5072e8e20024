"""LoHa (FedPara, arXiv 2108.06098): the elementwise product of two low-rank matrices.

Keys ``<module>.hada_w1_a``, ``hada_w1_b``, ``hada_w2_a``, ``hada_w2_b``, and with
``use_effective_conv2d`` the cores ``hada_t1``, ``hada_t2`` of a convolution.
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
    rank, scale = ranks_and_scales(config)

    def build(parts: Parts) -> Iterator[Target]:
        options = {"scale": scale(parts.module)}
        yield Target(parts.module, "loha", _change(parts, options))

    layouts = [_MATRIX, _KERNEL]
    return read_layouts(tensors, layouts, build, known=lambda module: {"r": rank(module)})


def _change(parts: Parts, options: Mapping[str, float]) -> Computed:
    if "hada_t1" not in parts.tensors:  # a convolution's matrix does not tell its kernel
        return Computed("loha", parts.tensors, options)
    shape = tuple(parts.sizes[axis] for axis in ("out", "in", "height", "width"))
    # A kernel of one dimension is stored with a width of 1.
    known = shape if shape[-1] > 1 else None
    return Computed("loha_kernel", parts.tensors, options, shape=known)


KIND = Kind("LOHA", _read, fields=FIELDS, training=TRAINING, export="yes")
