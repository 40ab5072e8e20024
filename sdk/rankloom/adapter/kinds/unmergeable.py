"""Types of PEFT whose effect is no change of the base's weights, or none that can be recomputed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SERVE = "serve it with PEFT beside the base, or train a LoRA adapter instead"


@dataclass(frozen=True, slots=True)
class Unmergeable:
    """Why a type cannot be applied to weights, and what to do instead."""

    why: str
    fix: str = _SERVE


_TOKENS = Unmergeable("it puts learned vectors before the input, and changes no weight")
_CACHE = Unmergeable("it puts learned keys and values into the attention, and changes no weight")

UNMERGEABLE: Mapping[str, Unmergeable] = {
    "PROMPT_TUNING": _TOKENS,
    "MULTITASK_PROMPT_TUNING": _TOKENS,
    "P_TUNING": _TOKENS,
    "CPT": _TOKENS,
    "PREFIX_TUNING": _CACHE,
    "CARTRIDGE": _CACHE,
    "ADAPTION_PROMPT": Unmergeable("it adds gated attention over learned tokens to the layers"),
    "XLORA": Unmergeable(
        "it mixes adapters with weights that it computes from each input",
        "compose the adapters that it mixes with fixed weights, or serve it with PEFT",
    ),
    "POLY": Unmergeable("it mixes its skills with weights that depend on each input's task"),
    "LILY": Unmergeable("it mixes its B matrices with weights that it computes from each input"),
    "SHADOW": Unmergeable("it runs a second, smaller network beside the layers"),
    "ADAMSS": Unmergeable(
        "the file does not say which rows belong to which subspace: PEFT clusters the base again",
        "merge the adapter with PEFT",
    ),
    "PSOFT": Unmergeable(
        "it rotates the base's singular vectors, whose signs the file does not hold: another "
        "machine may find other ones",
        "merge the adapter with PEFT on the machine that trained it",
    ),
}
"""By ``peft_type``."""
