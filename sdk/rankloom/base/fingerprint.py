r"""The fingerprint of a base: what identifies it however it is sharded, named or cast.

=========  ====================================================================================
``cfg``    digest of the config fields that decide shapes
``struct`` digest of the sorted (name, shape) of every tensor; from headers alone
``exact``  Merkle root: leaf = H("v1\0" ‖ [name, dtype, shape] ‖ H(bytes)), leaves in name order
``bf16``   the same with all floats rounded to bfloat16, so a lossless cast changes only ``exact``
=========  ====================================================================================

Which tensors count is in :mod:`rankloom.base.canonical`. H is SHA-256.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankloom import digest
from rankloom.base import canonical, fingerprint_cache
from rankloom.errors import BaseError
from rankloom.fingerprint import Fingerprint
from rankloom.tensorfile.entries import FLOATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from rankloom.base.model import Base
    from rankloom.tensorfile.header import TensorEntry

THREADS = 2
_VERSION = b"v1\0"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One tensor of a base, on disk or of a live model.

    Attributes:
        name: its name in the checkpoint.
        dtype: safetensors code.
        shape: its sizes.
        chunks: gives its little-endian bytes in order, each part a multiple of eight bytes but
            the last; called once, from another thread. A part may be overwritten once the next
            one is asked for.
        nbytes: its length in bytes, for progress.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[bytes | memoryview]]
    nbytes: int = 0


def fingerprint(
    base: Base,
    *,
    values: bool = True,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fingerprint:
    """Return the identity of a base on disk, in bounded memory.

    Args:
        base: the base.
        values: read all bytes for the levels ``exact`` and ``bf16``; otherwise headers only.
        cache: folder in which the result is kept until a file changes its size or time.
        progress: called with (bytes hashed, bytes in all).

    Raises:
        BaseError: values are asked of a base that is known by its record only.
        IntegrityError: a file became shorter meanwhile.
    """
    leaves = [_leaf(entry) for entry in base.tensors.values()]
    if not values:
        return fingerprint_of(leaves, base.config, values=False)
    if not base.files:
        message = "the base is known by its record only, its values are not here"
        raise BaseError(
            message, hint="use the fingerprint of the record, or give the base's folder"
        )
    key = fingerprint_cache.key(base)
    if cache is not None and (known := fingerprint_cache.load(cache, key)):
        return known
    found = fingerprint_of(leaves, base.config, progress=progress)
    if cache is not None and fingerprint_cache.key(base) == key:  # nothing was written meanwhile
        fingerprint_cache.store(cache, key, found)
    return found


def _leaf(entry: TensorEntry) -> Leaf:
    def chunks() -> Iterable[memoryview]:
        from rankloom.tensorfile.values import raw_chunks  # numpy, which headers do not need

        return raw_chunks(entry)

    return Leaf(entry.name, entry.dtype, entry.shape, chunks, entry.nbytes)


def fingerprint_of(
    tensors: Iterable[Leaf],
    config: Mapping[str, Any],
    *,
    values: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Fingerprint:
    """Return the identity of a base given tensor by tensor, e.g. of a model in memory.

    Args:
        tensors: all its tensors, in any order.
        config: content of its ``config.json``.
        values: hash the bytes for the levels ``exact`` and ``bf16``.
        progress: called with (bytes hashed, bytes in all).
    """
    leaves = {leaf.name: leaf for leaf in tensors if not canonical.is_buffer(leaf.name, leaf.shape)}
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    tied = canonical.tied_candidates(shapes, config)
    fields = canonical.shape_fields(config)
    cfg = digest.of_json(fields) if fields else None
    struct = digest.of_json(sorted([n, list(s)] for n, s in shapes.items() if n not in tied))
    if not values:
        return Fingerprint(cfg=cfg, struct=struct)
    hashes = dict(_hash_all(list(leaves.values()), progress))
    kept = {name: found for name, found in hashes.items() if not _repeats(name, tied, hashes)}
    exact = _root((leaves[name], leaves[name].dtype, found.exact) for name, found in kept.items())
    bf16 = _root((leaves[name], found.dtype, found.bf16) for name, found in kept.items())
    return Fingerprint(cfg=cfg, struct=struct, exact=exact, bf16=bf16)


@dataclass(frozen=True, slots=True)
class _Hashes:
    """Digests of one tensor's bytes as they are, and rounded (``dtype`` says to what)."""

    exact: bytes
    bf16: bytes
    dtype: str


def _repeats(name: str, tied: Mapping[str, tuple[str, ...]], hashes: Mapping[str, _Hashes]) -> bool:
    return any(hashes[other] == hashes[name] for other in tied.get(name, ()))


def _hash_all(
    leaves: list[Leaf], progress: Callable[[int, int], None] | None
) -> Iterator[tuple[str, _Hashes]]:
    total, done = sum(leaf.nbytes for leaf in leaves), 0
    with ThreadPoolExecutor(THREADS) as pool:
        for leaf, found in zip(leaves, pool.map(_hash, leaves), strict=True):
            done += leaf.nbytes
            if progress:
                progress(done, total)
            yield leaf.name, found


def _hash(leaf: Leaf) -> _Hashes:
    from rankloom.tensorfile.values import bf16_view

    exact = hashlib.sha256()
    if leaf.dtype not in FLOATS or leaf.dtype == "BF16":
        for chunk in leaf.chunks():
            exact.update(chunk)
        return _Hashes(exact.digest(), exact.digest(), leaf.dtype)
    rounded = hashlib.sha256()
    for chunk in leaf.chunks():
        exact.update(chunk)
        rounded.update(bf16_view(memoryview(chunk), leaf.dtype))
    return _Hashes(exact.digest(), rounded.digest(), "BF16")


def _root(leaves: Iterable[tuple[Leaf, str, bytes]]) -> str:
    root = hashlib.sha256(_VERSION)
    for leaf, dtype, content in sorted(leaves, key=lambda item: item[0].name):
        head = digest.canonical_json([leaf.name, dtype, list(leaf.shape)])
        root.update(hashlib.sha256(_VERSION + head + b"\0" + content).digest())
    return "sha256:" + root.hexdigest()
