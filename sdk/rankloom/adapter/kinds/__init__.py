"""One reader per kind of adapter: from config and tensors to targets.

A reader takes the tensors that it understands and leaves the others; what no reader takes is
refused by name. A new kind is one new module with a function of the type :class:`Reader`, the
config options that it understands in its ``OPTIONS``, and a line in :data:`READERS`.
"""

from __future__ import annotations

from rankloom.adapter.kinds import lora
from rankloom.adapter.kinds.reading import Reader, Reading

__all__ = ["OPTIONS", "READERS", "Reader", "Reading"]

READERS: tuple[Reader, ...] = (lora.read,)
OPTIONS: frozenset[str] = lora.OPTIONS
"""Config options that some reader understands, out of ``fields.OPTIONS``."""
