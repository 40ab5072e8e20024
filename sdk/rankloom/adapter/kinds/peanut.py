"""PEANuT (arXiv 2410.01870): a small network computes the delta from the base's weight.

Keys ``<module>.peanut_A.weight`` (r, out), ``peanut_B.weight`` (out, r), and for each depth i
``peanut_encoders.i.weight``, ``peanut_decoders.i.weight`` (r, r).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.field_values import choice, number, whole
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import read_layouts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.tensorfile.header import TensorEntry

ACTIVATIONS = ("relu", "gelu", "silu", "swish", "tanh", "sigmoid", "linear")


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    depth = config.options["depth"]
    options = {
        "depth": depth,
        "activation": config.options["act_fn"],
        "scale": config.options["scaling"],
    }
    layout = {"peanut_A.weight": "r out", "peanut_B.weight": "out r"} | {
        f"peanut_{side}.{place}.weight": "r r"
        for side in ("encoders", "decoders")
        for place in range(depth)
    }

    def build(parts: Parts) -> Iterator[Target]:
        change = Computed("peanut", parts.tensors, options, needs_base=True)
        yield Target(parts.module, "peanut", change)

    return read_layouts(tensors, [layout], build, known=lambda _: {"r": config.options["r"]})


KIND = Kind(
    "PEANUT",
    _read,
    fields={
        "r": Field(checks.rank, 32),
        "depth": Field(whole(0, 1000), 0),
        "act_fn": Field(choice(*ACTIVATIONS), "relu"),
        "scaling": Field(number, 1.0),
    },
)
