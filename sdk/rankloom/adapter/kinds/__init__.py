"""One reader per kind of adapter: from config and tensors to targets.

A reader takes the tensors that it understands and leaves the others; what no reader takes is
refused by name. The ``peft_type`` decides which readers see an adapter: those of :data:`LORA`, or
the one of its :class:`Kind`, and in both cases those of :data:`SHARED`. A new kind is a new module
with a ``KIND``, and a line in :data:`KINDS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.kinds import boft, hira, hra, ia3, ln_tuning, lora, miss, oft, road
from rankloom.adapter.kinds.kind import Kind
from rankloom.adapter.kinds.reading import Reader, Reading
from rankloom.adapter.kinds.unmergeable import UNMERGEABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KINDS", "UNMERGEABLE", "Kind", "Reader", "Reading", "claimed", "readers"]

LORA: tuple[Reader, ...] = (lora.read,)
"""Readers of the type LORA."""

LORA_OPTIONS: frozenset[str] = lora.OPTIONS
"""Options that some reader of LORA understands, out of ``fields.OPTIONS``."""

SHARED: tuple[Reader, ...] = ()
"""Readers of what every type can have besides, after those of its own: saved modules, biases."""

SHARED_OPTIONS: frozenset[str] = frozenset()
"""Options that some shared reader understands, out of ``fields.COMMON_OPTIONS``."""

_KINDS: tuple[Kind, ...] = (
    boft.KIND,
    hira.KIND,
    hra.KIND,
    ia3.KIND,
    ln_tuning.KIND,
    miss.BONE,
    miss.MISS,
    oft.KIND,
    road.KIND,
)
KINDS: Mapping[str, Kind] = {kind.peft_type: kind for kind in _KINDS}
"""Every other type that rankloom reads, by ``peft_type``."""


def readers(peft_type: str) -> tuple[Reader, ...]:
    """Return the readers of a type, in the order in which they take their tensors."""
    own = LORA if peft_type == "LORA" else (KINDS[peft_type].read,)
    return own + SHARED


def claimed(peft_type: str) -> frozenset[str]:
    """Return the options that some reader of a type understands."""
    own = LORA_OPTIONS if peft_type == "LORA" else frozenset(KINDS[peft_type].fields)
    return own | SHARED_OPTIONS


def shared_tensors(peft_type: str) -> frozenset[str]:
    """Return the full keys of tensors that belong to no module."""
    return frozenset() if peft_type == "LORA" else KINDS[peft_type].shared
