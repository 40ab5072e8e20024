"""DeLoRA (arXiv 2503.18225): normalised factors with a trained bound.

Keys ``<module>.delora_A`` (r, in), ``delora_B`` (out, r), ``delora_lambda`` (1,), and the norms of
the base's columns ``delora_w_norm`` (in,).
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

_LAYOUT = {
    "delora_A": "r in",
    "delora_B": "out r",
    "delora_lambda": "1",
    "delora_w_norm": "in",
}


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    rank = config.by_module("r", "rank_pattern")

    def build(parts: Parts) -> Iterator[Target]:
        shape = parts.sizes["out"], parts.sizes["in"]
        options = {"rank": parts.sizes["r"]}
        yield Target(
            parts.module, "delora", Computed("delora", parts.tensors, options, shape=shape)
        )

    return read_layouts(tensors, [_LAYOUT], build, known=lambda module: {"r": rank(module)})


KIND = Kind(
    "DELORA",
    _read,
    fields={"r": Field(checks.rank, 8), "rank_pattern": Field(checks.rank_pattern)},
    training={
        "delora_lambda": "how the bound began; the file holds how it ended",
        "lambda_pattern": "how the bound began; the file holds how it ended",
        "module_dropout": "acts in training only",
    },
    export="yes",
)
