"""SplitMix64 on whole numbers of any size, and the masks that should come from it."""

from __future__ import annotations

import hashlib

import numpy as np

_MASK = (1 << 64) - 1


def splitmix64(seed: int, count: int) -> list[int]:
    """Return the first outputs of the generator as its authors publish it."""
    state, outputs = seed & _MASK, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        outputs.append(z ^ (z >> 31))
    return outputs


def key_of(seed: int, adapter: str, target: str) -> int:
    text = f"splitmix64-halves\0001\000{seed}\000{adapter}\000{target}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def numbers(key: int, count: int) -> np.ndarray:
    """Return the 32-bit halves as signed numbers, the low one first."""
    words = splitmix64(key, (count + 1) // 2)
    halves = [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)]
    return np.array(halves[:count], dtype=np.uint32).astype(np.int32)


def mask(key: int, shape: tuple[int, ...], rate: float | np.ndarray) -> np.ndarray:
    """Return which elements stay: those whose number lies in the lowest share of all."""
    count = int(np.prod(shape))
    place = numbers(key, count).astype(np.int64).reshape(shape) + 2**31
    return place < np.round(np.asarray(rate, dtype=np.float64) * 2**32)
