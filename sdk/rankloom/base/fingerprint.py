r"""The fingerprint of a base: what identifies it however it is sharded, named or cast.

=========  ====================================================================================
``cfg``    digest of the config fields that decide shapes
``struct`` digest of the sorted (name, shape) of every tensor; from headers alone
``exact``  Merkle root: leaf = H("v1\0" ‖ [name, dtype, shape] ‖ H(bytes)), leaves in name order
``bf16``   the same with all floats rounded to bfloat16, so a lossless cast changes only ``exact``
=========  ====================================================================================

Which tensors count, and under which names, is in :mod:`rankloom.base.canonical`. H is SHA-256.
The leaves of ``bf16`` are kept beside the fingerprint: they tell which tensors of two bases differ.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class Measured:
    """What hashing a base gives.

    Attributes:
        fingerprint: its identity.
        leaves: digest at level ``bf16`` of each tensor by its canonical name; empty if no values
            were read.
    """

    fingerprint: Fingerprint
    leaves: Mapping[str, str]


def fingerprint(
    base: Base,
    *,
    values: bool = True,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fingerprint:
    """Return the identity of a base on disk; arguments and errors are those of :func:`measure`."""
    return measure(base, values=values, cache=cache, progress=progress).fingerprint


def measure(
    base: Base,
    *,
    values: bool = True,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Return the identity of a base on disk with its leaves, in bounded memory.

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
        return measure_leaves(leaves, base.config, values=False)
    if not base.files:
        message = "the base is known by its record only, its values are not here"
        raise BaseError(
            message, hint="use the fingerprint of the record, or give the base's folder"
        )
    key = fingerprint_cache.key(base)
    if cache is not None and (known := fingerprint_cache.load(cache, key)):
        return Measured(known.fingerprint, known.leaves)
    found = measure_leaves(leaves, base.config, progress=progress)
    if cache is not None and fingerprint_cache.key(base) == key:  # nothing was written meanwhile
        fingerprint_cache.store(cache, key, found.fingerprint, found.leaves)
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

    The arguments are those of :func:`measure_leaves`.
    """
    return measure_leaves(tensors, config, values=values, progress=progress).fingerprint


def measure_leaves(
    tensors: Iterable[Leaf],
    config: Mapping[str, Any],
    *,
    values: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Return the identity of a base given tensor by tensor, with its leaves.

    Args:
        tensors: all its tensors, in any order.
        config: content of its ``config.json``.
        values: hash the bytes for the levels ``exact`` and ``bf16``.
        progress: called with (bytes hashed, bytes in all).
    """
    leaves = _canonical(tensors)
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    tied = canonical.tied_candidates(shapes, config)
    fields = canonical.shape_fields(config)
    cfg = digest.of_json(fields) if fields else None
    struct = digest.of_json(sorted([n, list(s)] for n, s in shapes.items() if n not in tied))
    if not values:
        return Measured(Fingerprint(cfg=cfg, struct=struct), {})
    hashes = dict(_hash_all(list(leaves.values()), progress))
    kept = {name: found for name, found in hashes.items() if not _repeats(name, tied, hashes)}
    exact = {name: _sealed(leaves[name], leaves[name].dtype, h.exact) for name, h in kept.items()}
    bf16 = {name: _sealed(leaves[name], h.dtype, h.bf16) for name, h in kept.items()}
    found = Fingerprint(cfg=cfg, struct=struct, exact=_root(exact), bf16=_root(bf16))
    return Measured(found, {name: f"sha256:{sealed.hex()}" for name, sealed in bf16.items()})


def root(leaves: Mapping[str, str]) -> str:
    """Return the level ``bf16`` of a base, given the digest of each tensor at that level."""
    return _root({name: bytes.fromhex(leaf[7:]) for name, leaf in leaves.items()})


def _canonical(tensors: Iterable[Leaf]) -> dict[str, Leaf]:
    """Return the tensors that count, under the names that count."""
    counted = [leaf for leaf in tensors if not canonical.is_buffer(leaf.name, leaf.shape)]
    names = canonical.names([leaf.name for leaf in counted])
    return {names[leaf.name]: replace(leaf, name=names[leaf.name]) for leaf in counted}


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


def _sealed(leaf: Leaf, dtype: str, content: bytes) -> bytes:
    head = digest.canonical_json([leaf.name, dtype, list(leaf.shape)])
    return hashlib.sha256(_VERSION + head + b"\0" + content).digest()


def _root(leaves: Mapping[str, bytes]) -> str:
    found = hashlib.sha256(_VERSION)
    for name in sorted(leaves):
        found.update(leaves[name])
    return f"sha256:{found.hexdigest()}"
