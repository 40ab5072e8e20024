"""One reader per kind of adapter: from config and tensors to targets.

A reader takes the tensors that it understands and leaves the others; what no reader takes is
refused by name. The ``peft_type`` decides which readers see an adapter: those of :data:`LORA`, or
the one of its :class:`Kind`, and in both cases those of :data:`SHARED`. A new kind is a new module
with a ``KIND``, and a line in :data:`KINDS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.kinds import (
    adalora,
    beft,
    boft,
    c3a,
    deft,
    delora,
    frod,
    glora,
    gralora,
    hira,
    hra,
    ia3,
    ln_tuning,
    loha,
    lokr,
    lora_kinds,
    miss,
    oft,
    osf,
    peanut,
    randlora,
    road,
    saved,
    shira,
    spectral,
    supertuning,
    tinylora,
    trainable_tokens,
    unilora,
    vblora,
    vera,
)
from rankloom.adapter.kinds.kind import Export, Kind
from rankloom.adapter.kinds.reading import Reader, Reading
from rankloom.adapter.kinds.unmergeable import UNMERGEABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.adapter.config import AdapterConfig

__all__ = [
    "KINDS",
    "LORA_EXPORT",
    "NOT_LISTED",
    "UNMERGEABLE",
    "Export",
    "Kind",
    "Reader",
    "Reading",
    "claimed",
    "readers",
]

NOT_LISTED = lora_kinds.NOT_LISTED

LORA: tuple[Reader, ...] = tuple(lora_kinds.READERS)
"""Readers of the type LORA."""

LORA_OPTIONS: frozenset[str] = lora_kinds.OPTIONS
"""Options that some reader of LORA understands, out of ``fields.OPTIONS``."""

SHARED: tuple[Reader, ...] = (saved.read,)
"""Readers of what every type can have besides, after those of its own: saved modules, biases."""

LORA_EXPORT: Mapping[Reader, Export] = {**lora_kinds.READERS, saved.read: "with weight 1"}
"""Whether what each of these readers finds in an adapter of the type LORA can be saved again."""

SHARED_OPTIONS: frozenset[str] = saved.OPTIONS
"""Options that some shared reader understands, out of ``fields.COMMON_OPTIONS``."""

_KINDS: tuple[Kind, ...] = (
    adalora.KIND,
    beft.KIND,
    boft.KIND,
    c3a.KIND,
    deft.KIND,
    delora.KIND,
    frod.KIND,
    gralora.KIND,
    hira.KIND,
    glora.KIND,
    hra.KIND,
    ia3.KIND,
    ln_tuning.KIND,
    loha.KIND,
    lokr.KIND,
    miss.BONE,
    miss.MISS,
    oft.KIND,
    osf.KIND,
    peanut.KIND,
    randlora.KIND,
    road.KIND,
    shira.KIND,
    spectral.FOURIERFT,
    spectral.WAVEFT,
    supertuning.KIND,
    tinylora.KIND,
    trainable_tokens.KIND,
    unilora.KIND,
    vblora.KIND,
    vera.PVERA,
    vera.VERA,
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


def is_shared(peft_type: str, key: str) -> bool:
    """Tell whether a tensor of this full key belongs to no module."""
    return peft_type != "LORA" and KINDS[peft_type].shares(key)


def may_be_conv1d(config: AdapterConfig) -> bool:
    """Tell whether an adapter says, or leaves open, that it changes a ``Conv1D``."""
    tells = config.peft_type == "LORA" or KINDS[config.peft_type].tells_conv1d
    return not tells or config.raw.get("fan_in_fan_out") is True
