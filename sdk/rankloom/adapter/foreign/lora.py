"""LoRA and DoRA files of other tools as PEFT folders with one rank and one scale.

Where all modules have one scale, the factors keep their bits, and get rows and columns of zeros
up to the largest rank. Otherwise B is multiplied by what its module's scale is more than the
common one, and all values become float32, or float64 where only that holds the products. Where a
third factor lies between the two, the sums are formed in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankloom.adapter.foreign import scale
from rankloom.adapter.foreign.factor import Factor
from rankloom.adapter.foreign.keys import MAGNITUDE, MID, A, B
from rankloom.adapter.foreign.output import Output, Tensor, copy, key, number
from rankloom.adapter.foreign.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from fractions import Fraction

    from rankloom.adapter.foreign.keys import Module

_MERGE = "merge it with the tool that made it"


@dataclass(frozen=True, slots=True)
class Scaled:
    """A module and its scale: ΔW = scale · B·A."""

    module: Module
    scale: Fraction


def write(modules: Mapping[str, Scaled]) -> Output:
    """Return the folder of some modules, by their names in the model.

    Raises:
        UnsupportedAdapterError: a magnitude is none of PEFT's DoRA.
    """
    is_dora = _is_dora([found.module for found in modules.values()])
    rank = max(found.module.tensors[A].shape[0] for found in modules.values())
    one = scale.common(found.scale for found in modules.values())
    tensors: dict[str, Tensor] = {}
    output = Output(_config(modules, rank, float(one * rank), is_dora=is_dora), tensors)
    code = _code(modules, one)
    for name, found in modules.items():
        for leaf, factor in _factors(found, rank, found.scale / one).items():
            made = factor.computed(code, output.rounded.add) if code else factor.kept()
            tensors[key(name, f"lora_{leaf}.weight")] = made
        if is_dora:
            tensors[key(name, "lora_magnitude_vector")] = _magnitude(found.module)
    return output


def _config(modules: Collection[str], rank: int, alpha: float, *, is_dora: bool) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": number(alpha),
        "rank_pattern": {},
        "alpha_pattern": {},
        "target_modules": sorted(modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_dora": is_dora,
        "use_rslora": False,
        "inference_mode": True,
    }


def _code(modules: Mapping[str, Scaled], one: Fraction) -> str:
    """Return the dtype that holds all products exactly; empty: there are none to be formed."""
    tensors = [found.module.tensors for found in modules.values()]
    if all(found.scale == one for found in modules.values()) and not any(MID in t for t in tensors):
        return ""
    bits = max(
        scale.BITS[found.module.tensors[B].dtype] + scale.bits(found.scale / one)
        for found in modules.values()
    )
    is_wide = bits > scale.BITS["F32"] or any(held[A].dtype == "F64" for held in tensors)
    return "F64" if is_wide else "F32"


def _factors(found: Scaled, rank: int, times: Fraction) -> dict[str, Factor]:
    held, name = found.module.tensors, found.module.name
    a, b, mid = held[A], held[B], held.get(MID)
    kernel = mid.shape[2:] if mid else a.shape[2:]
    return {
        "A": Factor(name, a, (rank, a.shape[1], *kernel), mid=mid),
        "B": Factor(name, b, (b.shape[0], rank, *b.shape[2:]), times),
    }


def _is_dora(modules: Collection[Module]) -> bool:
    without = [module.name for module in modules if MAGNITUDE not in module.tensors]
    if without and len(without) < len(modules):
        raise refusal(without[0], "has no magnitude, which other modules have", _MERGE, "CFG007")
    return not without


def _magnitude(module: Module) -> Tensor:
    """Return the lengths of W's rows: (out,), for a convolution (1, out, 1, …), as PEFT has them.

    Raises:
        UnsupportedAdapterError: they are those of columns (LyCORIS without ``wd_on_output``).
    """
    entry, b = module.tensors[MAGNITUDE], module.tensors[B]
    out, ones = b.shape[0], (1,) * (len(b.shape) - 2)
    # (1, out, …) is PEFT's for a convolution, and LyCORIS's for columns; (out, 1, …) is LyCORIS's.
    is_lycoris = entry.name.endswith(".dora_scale")
    if entry.shape not in ({(out, 1, *ones)} if is_lycoris else {(out,), (1, out, *ones)}):
        what = f"has magnitudes {list(entry.shape)}, not one for each of {out} outputs"
        raise refusal(entry.name, what, _MERGE)
    return copy(entry, (1, out, *ones) if ones else (out,))
