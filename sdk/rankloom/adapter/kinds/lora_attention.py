"""LoRA on ``nn.MultiheadAttention``, whose projections PEFT always adapts together.

Keys ``<module>.lora_A.weight`` (r, d) and ``lora_B.weight`` (3d, r) for the packed projection of
queries, keys and values, ``in_proj_weight``; ``<module>.base_layer.out_proj.lora_A.weight`` and
``lora_B.weight`` for the output projection, both at the rank and scale of the module itself.

PEFT adds the change of the output projection twice, in its forward pass and when it merges
(``MultiheadAttention.merge`` adds it, then calls ``out_proj.merge``, which adds it again). The
adapter was trained so: what it makes of the layer is W + 2·s·B·A.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import LowRank, Target
from rankloom.adapter.kinds import factors
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Pair, Tensors
    from rankloom.adapter.kinds.reading import Reading

_OUT = ".base_layer.out_proj"
_TWICE = 2.0


def is_attention(tensors: Tensors, module: str) -> bool:
    """Tell whether a module's factors are those of an ``nn.MultiheadAttention``."""
    return any(module + _OUT + end in tensors for end in factors.LINEAR)


def owner(tensors: Tensors, module: str) -> str:
    """Return the module by whose name the config gives rank and scale."""
    outer = module.removesuffix(_OUT)
    return outer if outer != module and is_attention(tensors, outer) else module


def plain(module: str) -> str:
    """Return the name that a module has in the base."""
    return module.replace(_OUT, ".out_proj") if module.endswith(_OUT) else module


def read(config: AdapterConfig, tensors: Tensors) -> Reading:
    """Return two targets for every attention module."""
    scales = config.scales()

    def build(pair: Pair) -> Iterable[Target | Finding]:
        name = owner(tensors, pair.module)
        if wrong := list(factors.check_linear(pair, scales.rank(name))):
            return wrong
        if name == pair.module:
            change = LowRank(pair.a, pair.b, scales.scale(name))
            return [Target(name, "lora_attention", change, "in_proj_weight")]
        change = LowRank(pair.a, pair.b, _TWICE * scales.scale(name))
        return [Target(plain(pair.module), "lora_attention_out", change)]

    found = factors.modules_of(tensors, factors.LINEAR)
    outer = [module for module in found if is_attention(tensors, module)]
    inner = [module for module in found if owner(tensors, module) != module]
    lost = [
        Finding("TEN002", f"{module} has factors of out_proj only", where=module)
        for module in sorted({owner(tensors, module) for module in inner} - set(outer))
    ]
    result = factors.read_pairs(tensors, factors.LINEAR, build, [*outer, *inner])
    return factors.reading([*result.targets, *result.findings, *lost], result.taken)
