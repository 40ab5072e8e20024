"""OSF (arXiv 2504.07097): the smallest singular triples of the base are replaced by trained ones.

Keys ``<module>.osf_svd_params.U_low`` (out, n), ``S_low`` (n,), ``V_low`` (n, in).
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

_LAYOUT = {
    "osf_svd_params.U_low": "out n",
    "osf_svd_params.S_low": "n",
    "osf_svd_params.V_low": "n in",
}


def _read(_config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    def build(parts: Parts) -> Iterator[Target]:
        shape = parts.sizes["out"], parts.sizes["in"]
        change = Computed("osf", parts.tensors, needs_base=True, shape=shape)
        yield Target(parts.module, "osf", change)

    return read_layouts(tensors, [_LAYOUT], build)


KIND = Kind(
    "OSF",
    _read,
    training={
        "effective_rank": "how many triples were kept; the file holds the others",
        "rank_pattern": "how many triples were kept; the file holds the others",
    },
    fixed={"target_svd_config": None},
)
