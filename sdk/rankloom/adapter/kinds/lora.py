"""LoRA (arXiv 2106.09685) and rsLoRA (arXiv 2312.03732) on linear layers.

Keys ``<module>.lora_A.weight`` (r, in) and ``<module>.lora_B.weight`` (out, r); ΔW = s·B·A. The
same for transformers' ``Conv1D``, whose factors lie in the file as for a linear layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import LowRank, Target
from rankloom.adapter.kinds import factors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Pair, Tensors
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.finding import Finding


def read(config: AdapterConfig, tensors: Tensors) -> Reading:
    """Return a target for every module that has both factors with fitting shapes."""
    scales = config.scales()
    kind = "rslora" if config.use_rslora else "lora"

    def build(pair: Pair) -> Iterable[Target | Finding]:
        if wrong := list(factors.check_linear(pair, scales.rank(pair.module))):
            return wrong
        return [Target(pair.module, kind, LowRank(pair.a, pair.b, scales.scale(pair.module)))]

    return factors.read_pairs(tensors, factors.LINEAR, build)
