"""Digests of tensors, whatever file holds them and in whatever order.

One for all tensors of an adapter tells which adapters are the same; one for each tensor's content,
whatever its name, tells which have some in common.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom import digest
from rankloom.tensorfile.values import raw_chunks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rankloom.tensorfile.header import TensorEntry

CONTENT_BYTES = 16
"""Bytes of a content's digest: nobody can make another content that has the same."""


@dataclass(frozen=True, slots=True, order=True)
class Leaf:
    """One tensor, read once.

    Attributes:
        name: its key in the file.
        dtype: its safetensors code.
        shape: its shape.
        values: SHA-256 of its bytes, as hex.
        uniform: all its values are the same, as in a scalar or an untrained factor of zeros, so
            that others have the same tensor by chance.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: str
    uniform: bool

    @property
    def content(self) -> bytes:
        """The first :data:`CONTENT_BYTES` of the SHA-256 over dtype, shape and bytes."""
        whole = digest.of_json([self.dtype, list(self.shape), self.values])
        return bytes.fromhex(whole.removeprefix("sha256:"))[:CONTENT_BYTES]


def leaves(entries: Iterable[TensorEntry]) -> list[Leaf]:
    """Return every tensor by name, each read once.

    Raises:
        IntegrityError: the file became shorter meanwhile.
    """
    return sorted(_leaf(entry) for entry in entries)


def tensor_digest(tensors: Iterable[Leaf]) -> str:
    """Return the digest over name, dtype, shape and bytes of each tensor, by name.

    Metadata, order and alignment of the file do not count. Nor does the config: two adapters of
    the same tensors may scale them in two ways.
    """
    return digest.of_json(
        [[one.name, one.dtype, list(one.shape), one.values] for one in sorted(tensors)]
    )


def contents(tensors: Iterable[Leaf]) -> frozenset[bytes]:
    """Return the digests of the tensors' contents, without those that are uniform."""
    return frozenset(one.content for one in tensors if not one.uniform)


def _leaf(entry: TensorEntry) -> Leaf:
    found, first, uniform = hashlib.sha256(), b"", True
    width = (entry.end - entry.start) // max(1, math.prod(entry.shape))
    for chunk in raw_chunks(entry):
        found.update(chunk)
        first = first or bytes(chunk[:width])
        uniform = uniform and _repeats(chunk, first)
    return Leaf(entry.name, entry.dtype, entry.shape, found.hexdigest(), uniform)


def _repeats(chunk: memoryview, first: bytes) -> bool:
    """Tell whether a chunk is one value again and again; mostly the second one decides."""
    width = len(first)
    if not width:
        return False  # values smaller than a byte
    if chunk[width : 2 * width] not in (first, b""):
        return False
    return bytes(chunk) == first * (len(chunk) // width)
