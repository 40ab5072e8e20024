"""A base as the registry records it: config and headers, enough to validate an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rankloom.base.model import Base
from rankloom.registry.wire import BaseRecord, BaseTensorShape
from rankloom.tensorfile.header import TensorEntry

if TYPE_CHECKING:
    from rankloom.fingerprint import Fingerprint


def to_record(base: Base, name: str, fingerprint: Fingerprint, source: str = "") -> BaseRecord:
    """Return what the registry keeps of a base.

    Args:
        base: the base.
        name: its name in the registry.
        fingerprint: its identity.
        source: where it came from; a claim, for people only.

    Raises:
        ValidationError: (pydantic's) the name is not valid.
    """
    return BaseRecord(
        name=name,
        fingerprint=fingerprint,
        source=source,
        config=dict(base.config),
        tensors={
            key: BaseTensorShape(dtype=entry.dtype, shape=entry.shape)
            for key, entry in base.tensors.items()
        },
    )


def from_record(record: BaseRecord) -> Base:
    """Return a recorded base; its tensors have names, dtypes and shapes, but no bytes."""
    nowhere = Path()
    tensors = {
        name: TensorEntry(nowhere, name, shape.dtype, shape.shape, 0, 0)
        for name, shape in record.tensors.items()
    }
    return Base(nowhere, record.config, tensors)
