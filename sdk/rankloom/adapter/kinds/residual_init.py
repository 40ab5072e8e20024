"""Initialisations that took something off the base: PiSSA (arXiv 2404.02948), OLoRA (2406.01775).

The keys are those of plain LoRA on linear layers, but the adapter belongs to a base without
s·B₀·A₀, the factors' first values. Those follow from the base: PiSSA's are its r largest singular
components, OLoRA's come from its QR decomposition. An adapter that PEFT converted on saving
(``path_initial_model_for_weight_conversion``) says ``init_lora_weights: true`` and is plain LoRA;
so is a head that PEFT saved itself, without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, LowRank, Target
from rankloom.adapter.config import FILE
from rankloom.adapter.fields import FOLDED_INITS
from rankloom.adapter.kinds import factors
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Pair, Tensors
    from rankloom.adapter.kinds.reading import Reading

_ALONE = ("use_dora", "kasa_config", "use_bdlora", "target_parameters")
"""Options under which it would be another formula, which nobody uses."""


def read(config: AdapterConfig, tensors: Tensors) -> Reading:
    """Return a target for every linear layer, if the config names such an initialisation."""
    init = str(config.raw.get("init_lora_weights")).lower()
    if init not in FOLDED_INITS:
        return factors.reading((), ())
    scales = config.scales()

    def build(pair: Pair) -> Iterable[Target | Finding]:
        if wrong := list(factors.check_linear(pair, scales.rank(pair.module))):
            return wrong
        scale = scales.scale(pair.module)
        if pair.module + factors.SAVED in tensors:
            return [Target(pair.module, init, LowRank(pair.a, pair.b, scale))]
        change = Computed(
            init,
            {"a": pair.a, "b": pair.b},
            {"scale": scale},
            needs_base=True,
            shape=(pair.b.shape[0], pair.a.shape[1]),
        )
        return [Target(pair.module, init, change)]

    result = factors.read_pairs(tensors, factors.LINEAR, build)
    problem = _problem(config, init)
    return factors.reading([*problem, *result.targets, *result.findings], result.taken)


def _problem(config: AdapterConfig, init: str) -> list[Finding]:
    others = [name for name in _ALONE if name in config.options]
    # PEFT decomposes what Conv1D stores without transposing it, and then adds it transposed.
    if init == "olora" and config.raw.get("fan_in_fan_out") is True:
        others.append("fan_in_fan_out")
    if not others:
        return []
    message = f"{FILE}: init_lora_weights is {init!r} together with {', '.join(others)}"
    fix = "save it with save_pretrained(..., path_initial_model_for_weight_conversion=...)"
    return [Finding("CFG010", message, where="init_lora_weights", fix=fix)]
