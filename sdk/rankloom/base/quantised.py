"""Quantised bases: which modules are kept in codes, to which no delta can be added exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.errors import IncompatibleError
from rankloom.finding import Finding
from rankloom.tensorfile.entries import FLOATS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.base.model import Base

_MARKS = (
    "qweight",
    "qzeros",
    "weight_packed",
    "weight_quantized",
    "weight_scale",
    "weight_scale_inv",
    "SCB",
    "weight.SCB",
    "weight.absmax",
    "weight.quant_state.bitsandbytes__nf4",
    "weight.quant_state.bitsandbytes__fp4",
    "weight:_data",
    "weight:qdata",
    "weight._data",
    "W_q",
    "weight_scales",
)
"""Tensors that a module has besides its weight, or instead, where that is quantised."""
_BESIDE = ("_blocks", "_scales", "_scale_inv", "_packed")
"""Endings of what is kept besides a parameter, or instead."""
ENDINGS = (*(f".{mark}" for mark in _MARKS), *_BESIDE)
"""Endings of the names of all these tensors."""


def check(base: Base, name: str) -> None:
    """Refuse a parameter that the base keeps quantised.

    Args:
        base: the base.
        name: name on disk of a parameter, whether it is stored or not.

    Raises:
        IncompatibleError: it does so, with finding BASE006.
    """
    for mark in _marks(name) if base.marks else ():
        if mark in base.marks:
            raise _refused(base, name, mark)


def in_codes(base: Base, name: str) -> bool:
    """Tell whether a parameter is kept quantised: in codes beside it, or in a dtype of codes.

    Args:
        base: the base.
        name: its name on disk, whether it is stored or not.
    """
    entry = base.tensors.get(name)
    if entry is not None and entry.dtype not in FLOATS:
        return True
    return any(mark in base.marks for mark in _marks(name))


def _marks(name: str) -> Iterator[str]:
    module, _, parameter = name.rpartition(".")
    if parameter == "weight":
        yield from (f"{module}.{mark}" for mark in _MARKS)
    yield from (name + ending for ending in _BESIDE)


def check_conversion(base: Base, dtype: str) -> None:
    """Refuse to convert a base of which something is quantised: scales are floats too.

    Args:
        base: the base.
        dtype: what its floating tensors shall become.

    Raises:
        IncompatibleError: it is quantised, with finding BASE006.
    """
    known, mark = method(base.config), min(base.marks, default=None) or _codes(base)
    if mark is None and known is None:
        return
    message = f"the base is quantised ({known or mark}): in {dtype} its scales would be other ones"
    fix = "leave out the dtype: all that is not changed then keeps every bit"
    finding = Finding("BASE006", message, where=mark or "quantization_config", fix=fix)
    raise IncompatibleError(str(finding), hint=fix, findings=[finding])


def _codes(base: Base) -> str | None:
    """Return a tensor that can only be codes: of a dtype of fp8, or a weight that is no float.

    Buffers are integers too (places, masks, counters), but no model calls one of them a weight.
    """
    for name, entry in sorted(base.tensors.items()):
        is_weight = name.rpartition(".")[2] == "weight"
        if entry.dtype.startswith("F8") or (is_weight and entry.dtype not in FLOATS):
            return name
    return None


def _refused(base: Base, name: str, mark: str) -> IncompatibleError:
    message = f"the base keeps {name} quantised, as {mark}"
    if known := method(base.config):
        message += f" ({known})"
    fix = "use the base as it was before it was quantised, or save it with model.dequantize()"
    finding = Finding("BASE006", message, where=name, fix=fix)
    return IncompatibleError(str(finding), hint=fix, findings=[finding])


def method(config: Mapping[str, object]) -> str | None:
    """Return what a config calls the method that a base is quantised with."""
    for key in ("quantization_config", "compression_config"):
        found = config.get(key)
        if isinstance(found, dict):
            return str(found.get("quant_method") or found.get("quant_algo") or "quantised")
    inner = config.get("text_config")
    return method(inner) if isinstance(inner, dict) else None
