"""Tensors that some variants of LoRA save and use in training only.

VeLoRA (``lora_velora_embed``) compresses what the backward pass keeps, MonteCLoRA
(``lora_monteclora_sampler``) draws noise for A; in evaluation and when merging, both are s·B·A.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.kinds import factors
from rankloom.finding import Finding, Severity

if TYPE_CHECKING:
    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Tensors
    from rankloom.adapter.kinds.reading import Reading

_STATE = {
    "velora_config": (".lora_velora_embed",),
    "monteclora_config": tuple(
        f".lora_monteclora_sampler.{name}"
        for name in ("expert_weights", "expert_weights_prior", "gaussian_var_prior", "std_prior")
    ),
}
"""How their keys end, by the config's option."""


def read(config: AdapterConfig, tensors: Tensors) -> Reading:
    """Take these tensors, if the config names their variant, and say that they have no effect."""
    ends = tuple(end for option, ends in _STATE.items() if option in config.options for end in ends)
    found = sorted(key for key in tensors if ends and key.endswith(ends))
    if not found:
        return factors.reading((), ())
    message = f"{found[0]} and {len(found) - 1} more act in training only: left out"
    return factors.reading([Finding("TEN009", message, Severity.INFO, where=found[0])], found)
