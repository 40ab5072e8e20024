"""One digest for the tensors of an adapter, whatever file holds them and in whatever order."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from rankloom import digest
from rankloom.tensorfile.values import raw_chunks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rankloom.tensorfile.header import TensorEntry


def tensor_digest(entries: Iterable[TensorEntry]) -> str:
    """Return the digest over name, dtype, shape and bytes of each tensor, by name.

    Metadata, order and alignment of the file do not count. Nor does the config: two adapters of
    the same tensors may scale them in two ways.

    Raises:
        IntegrityError: the file became shorter meanwhile.
    """
    leaves = sorted([entry.name, entry.dtype, list(entry.shape), _of(entry)] for entry in entries)
    return digest.of_json(leaves)


def _of(entry: TensorEntry) -> str:
    found = hashlib.sha256()
    for chunk in raw_chunks(entry):
        found.update(chunk)
    return found.hexdigest()
