"""A base as the registry records it: config and headers, enough to validate an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rankloom.base import canonical
from rankloom.base.model import Base
from rankloom.errors import BaseError
from rankloom.registry.wire import BaseRecord, BaseTensorShape
from rankloom.tensorfile.header import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.fingerprint import Fingerprint


def to_record(
    base: Base,
    name: str,
    fingerprint: Fingerprint,
    source: str = "",
    leaves: Mapping[str, str] | None = None,
) -> BaseRecord:
    """Return what the registry keeps of a base.

    Args:
        base: the base.
        name: its name in the registry.
        fingerprint: its identity.
        source: where it came from; a claim, for people only.
        leaves: digest of each tensor by its canonical name; ``None``: not known.

    Raises:
        ValidationError: (pydantic's) the name is not valid.
    """
    names, known = canonical.names(base.tensors), leaves or {}
    return BaseRecord(
        name=name,
        fingerprint=fingerprint,
        source=source,
        config=dict(base.config),
        tensors={
            key: BaseTensorShape(dtype=entry.dtype, shape=entry.shape, leaf=known.get(names[key]))
            for key, entry in base.tensors.items()
        },
    )


def leaves(record: BaseRecord) -> dict[str, str]:
    """Return the digest of each tensor of a record by its canonical name, as far as known."""
    names = canonical.names(record.tensors)
    return {names[name]: shape.leaf for name, shape in record.tensors.items() if shape.leaf}


def check(record: BaseRecord) -> None:
    """Refuse a record whose fingerprint is not that of what it says of the base.

    Of headers and config the levels ``cfg`` and ``struct`` follow, and of the tensors' digests, if
    they are there, ``bf16``; ``exact`` needs the values. A record without tensors says nothing that
    could be compared.

    Raises:
        BaseError: (BASE003) a level is another.
    """
    from rankloom.base.fingerprint import measure, root  # a reader of records needs none of it

    if not record.tensors:
        return
    try:
        found = measure(from_record(record), values=False).fingerprint
    except ValueError as error:  # JSON of Python's holds NaN, and half a character
        message = f"the config of base {record.name} is no JSON: {error}"
        raise BaseError(
            message, hint="a config holds finite numbers and valid text only"
        ) from error
    claimed = record.fingerprint
    pairs = {"cfg": (claimed.cfg, found.cfg), "struct": (claimed.struct, found.struct)}
    if known := leaves(record):
        pairs["bf16"] = claimed.bf16, root(known)
    wrong = [level for level, (one, other) in pairs.items() if one != other]
    if wrong:
        message = f"BASE003 the fingerprint of base {record.name} is not that of its headers and"
        message += f" config ({', '.join(wrong)})"
        raise BaseError(message, hint="record it from its folder with 'loractl base add DIR'")


def from_record(record: BaseRecord) -> Base:
    """Return a recorded base; its tensors have names, dtypes and shapes, but no bytes."""
    nowhere = Path()
    tensors = {
        name: TensorEntry(nowhere, name, shape.dtype, shape.shape, 0, 0)
        for name, shape in record.tensors.items()
    }
    return Base(nowhere, record.config, tensors)
