"""LoRA on convolutions with one, two or three dimensions.

Keys as for a linear layer: A (r, in, *kernel), B (out, r/groups, 1, …); what is added to the
weight (out, in, *kernel) is s·Σᵣ B[o, r]·A[r, i, …]. PEFT's A sees all inputs, also where the
layer is divided into groups, so there it computes what no weight of such a layer computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds import factors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Pair, Tensors
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.finding import Finding


def read(config: AdapterConfig, tensors: Tensors) -> Reading:
    """Return a target for every convolution that has both factors with fitting shapes."""
    scales = config.scales()

    def build(pair: Pair) -> Iterable[Target | Finding]:
        if wrong := check(pair, scales.rank(pair.module)):
            return wrong
        shape = weight_shape(pair)
        options = {"scale": scales.scale(pair.module)}
        tensors = {"a": pair.a, "b": pair.b}
        change = Computed("lora_conv", tensors, options, shape=shape, rank=pair.b.shape[1])
        return [Target(pair.module, "lora_conv", change)]

    return factors.read_pairs(tensors, factors.LINEAR, build, convolutions(tensors))


def convolutions(tensors: Tensors) -> list[str]:
    """Return the modules one of whose factors has a kernel."""
    return [
        module
        for module in factors.modules_of(tensors, factors.LINEAR)
        if any(
            (entry := tensors.get(module + end)) is not None and len(entry.shape) > 2
            for end in factors.LINEAR
        )
    ]


def check(pair: Pair, rank: int) -> list[Finding]:
    """Return what is wrong with the shapes of a convolution's factors."""
    a, b = pair.a.shape, pair.b.shape
    if not 3 <= len(a) == len(b) <= 5 or set(b[2:]) != {1}:
        return [factors.no_layer(pair, "a convolution")]
    if a[0] == rank and 0 < b[1] < rank and rank % b[1] == 0:
        what = f"is a convolution in {rank // b[1]} groups: PEFT's lora_A mixes them"
        fix = "do not target it; no weight of a grouped convolution can hold this change"
        return [factors.refused(pair.module, what, fix)]
    return list(factors.check_rank(pair, rank))


def weight_shape(pair: Pair) -> tuple[int, ...]:
    """Return the shape of the layer's weight: (out, in, *kernel)."""
    return (pair.b.shape[0], *pair.a.shape[1:])
