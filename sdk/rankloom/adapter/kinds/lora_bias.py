"""LoRA with ``lora_bias``: B has a bias of its own, which adds s·bias to the layer's bias.

Key ``<module>.lora_B.bias`` (out,), beside the factors. In ``nn.MultiheadAttention`` PEFT uses the
one of the output projection only: what it makes of the projection of the inputs is B·A alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds import factors, lora_attention
from rankloom.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Tensors
    from rankloom.adapter.kinds.reading import Reading

_BIAS = ".lora_B.bias"


def read(config: AdapterConfig, tensors: Tensors) -> Reading:
    """Return a target for every bias of a B; the factors are left to their own reader."""
    if config.options.get("lora_bias") is not True:
        return factors.reading((), ())
    modules = factors.modules_of(tensors, (_BIAS,))
    results: list[Target | Finding] = []
    for module in modules:
        results += _bias(config, tensors, module)
    for module in factors.modules_of(tensors, factors.LINEAR[1:]):
        if module not in modules:
            message = f"{module} has no lora_B.bias, but lora_bias is true"
            results.append(Finding("TEN002", message, where=module, fix="save the adapter again"))
    return factors.reading(results, (module + _BIAS for module in modules))


def _bias(config: AdapterConfig, tensors: Tensors, module: str) -> Iterator[Target | Finding]:
    entry = tensors[module + _BIAS]
    wrong = list(factors.check_dtype(entry))
    if len(entry.shape) != 1:
        message = f"{entry.name} has shape {list(entry.shape)}, not (out,)"
        wrong.append(Finding("TEN003", message, where=module, fix="save the adapter again"))
    if wrong:
        yield from wrong
    elif lora_attention.is_attention(tensors, module):
        message = f"{entry.name} has no effect: PEFT does not use it in nn.MultiheadAttention"
        yield Finding("TEN009", message, Severity.INFO, where=module)
    else:
        options = {"scale": config.scales().scale(lora_attention.owner(tensors, module))}
        change = Computed("lora_bias", {"bias": entry}, options, shape=entry.shape)
        yield Target(lora_attention.plain(module), "lora_bias", change, "bias")
