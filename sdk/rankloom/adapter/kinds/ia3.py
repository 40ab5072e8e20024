"""(IA)³ (arXiv 2205.05638): vectors that multiply outputs, or inputs of feedforward layers.

Key ``<module>.ia3_l``: (out, 1), or (1, in) for a feedforward layer; (1, channels, 1, …) for a
convolution. Where outputs are multiplied, a bias is too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.parts import broken, misshapen, read_parts
from rankloom.adapter.patterns import TargetRule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.parts import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.finding import Finding
    from rankloom.tensorfile.header import TensorEntry


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    named = config.options["feedforward_modules"] or ()
    regex = TargetRule.of(named) if isinstance(named, str) else None

    def build(module: str, parts: Parts) -> Iterator[Target | Finding]:
        shape = parts["l"].shape
        # PEFT looks at the end of the name only: "fc" is also the end of "my_fc".
        forward = regex.matches(module) if regex else module.endswith(tuple(named))
        if shape[:1] != (1,) and (len(shape) != 2 or shape[1] != 1):
            yield misshapen(module, parts, "(out, 1), (1, in) or (1, channels, 1, …)")
        elif len(shape) == 2 and shape[0] != shape[1] and forward != (shape[0] == 1):
            side = "inputs" if shape[0] == 1 else "outputs"
            what = f"multiplies {side}, but feedforward_modules of the config says otherwise"
            yield broken("CFG007", module, what, "correct feedforward_modules")
        else:
            yield from _targets(module, parts, forward)

    return read_parts(tensors, {"l": ".ia3_l"}, build)


def _targets(module: str, parts: Parts, forward: bool) -> Iterator[Target]:
    kind = "ia3_input" if forward else "ia3_output"
    yield Target(module, "ia3", Computed(kind, parts, needs_base=True))
    if not forward:
        bias = Computed(kind, parts, needs_base=True, if_present=True)
        yield Target(module, "ia3", bias, "bias")


KIND = Kind(
    "IA3",
    _read,
    fields={"feedforward_modules": Field(checks.modules)},
    training={"init_ia3_weights": "how the vectors began; the file holds how they ended"},
)
