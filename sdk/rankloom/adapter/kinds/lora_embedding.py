"""LoRA on embeddings.

Keys ``<module>.lora_embedding_A`` (r, rows) and ``<module>.lora_embedding_B`` (width, r), both
without ``.weight``; ΔW = s·(B·A)ᵀ for a weight of shape (rows, width).
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
    """Return a target for every embedding that has both factors with fitting shapes."""
    scales = config.scales()

    def build(pair: Pair) -> Iterable[Target | Finding]:
        if wrong := list(factors.check_linear(pair, scales.rank(pair.module))):
            return wrong
        change = LowRank(pair.a, pair.b, scales.scale(pair.module), transposed=True)
        return [Target(pair.module, "lora_embedding", change)]

    return factors.read_pairs(tensors, factors.EMBEDDING, build)
