"""Uni-LoRA (arXiv 2506.00799): every element of A and B is one of few shared values, scaled.

Keys ``<module>.unilora_indices_A`` and ``unilora_scales_A`` (r, in), the same for B (out, r), and
once ``base_model.unilora_theta_d`` (n,). Without ``save_indices`` the file holds the values only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.field_values import whole
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import read_layouts
from rankloom.adapter.kinds.parts import broken
from rankloom.adapter.kinds.shared import lacks, take, with_taken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.finding import Finding
    from rankloom.tensorfile.header import TensorEntry

_VALUES = "unilora_theta_d"
_LAYOUT = {
    "unilora_indices_A": "r in",
    "unilora_indices_B": "out r",
    "unilora_scales_A": "r in",
    "unilora_scales_B": "out r",
}


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    shared = take(tensors, [_VALUES])
    if not any(key.endswith(".unilora_indices_A") for key in tensors):
        return lacks(tensors, "save_indices", "unilora_indices and unilora_scales")

    def build(parts: Parts) -> Iterator[Target | Finding]:
        values = shared.get(_VALUES)
        if values is None or values.shape != (config.options["theta_d_length"],):
            found = "no" if values is None else list(values.shape)
            yield broken("TEN003", parts.module, f"has {found} values in {_VALUES}")
            return
        shape = parts.sizes["out"], parts.sizes["in"]
        change = Computed("unilora", {"theta": values, **parts.tensors}, shape=shape)
        yield Target(parts.module, "unilora", change)

    reading = read_layouts(
        tensors,
        [_LAYOUT],
        build,
        known=lambda _: {"r": config.options["r"]},
        indices=frozenset(["unilora_indices_A", "unilora_indices_B"]),
    )
    return with_taken(reading, shared)


KIND = Kind(
    "UNILORA",
    _read,
    fields={"r": Field(checks.rank, 4), "theta_d_length": Field(whole(1), 256)},
    training={
        "save_indices": "the file tells whether they were saved",
        "proj_seed": "how the indices were drawn; the file holds them",
        "unilora_dropout": "acts in training only",
        "init_theta_d_bound": "how the values began; the file holds how they ended",
    },
    shared=frozenset([f"base_model.{_VALUES}"]),
    export="yes",
)
