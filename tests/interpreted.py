# ruff: noqa: ANN401 - what an interpreter passes around has no types
"""Makes Triton's interpreter treat bfloat16 as a GPU does.

The interpreter multiplies the bits of bfloat16 numbers as if they were whole numbers, and cuts
float32 numbers off where a GPU rounds them to the nearest even one: it does not support the dtype,
as of Triton 3.9. Three methods are replaced, which have had these signatures from Triton 3.6 on.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

assert os.environ.get("TRITON_INTERPRET") == "1", "tests/conftest.py sets it before Triton loads"

import triton.language as tl  # noqa: E402
from triton.runtime import interpreter  # noqa: E402

_HANDLE: Any = interpreter.TensorHandle
_BUILDER: Any = interpreter.InterpreterBuilder
_PAIR = {tl.bfloat16, tl.float32}


def _widened(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _narrowed(values: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + ((bits >> 16) & 1) + np.uint32(0x7FFF)) >> 16
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded.astype(np.uint16))


def _patched() -> None:
    dot, cast, convert = _BUILDER.create_dot, _BUILDER.cast_impl, _BUILDER.create_fp_to_fp

    def wide(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return _HANDLE(_widened(handle.data), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        return dot(self, wide(a), wide(b), d, *rest)

    def cast_impl(self: Any, source: Any, target: Any) -> Any:
        if {source.dtype.scalar, target.scalar} != _PAIR:
            return cast(self, source, target)
        change = _widened if target.scalar == tl.float32 else _narrowed
        return _HANDLE(change(source.data), target.scalar)

    def create_fp_to_fp(self: Any, source: Any, target: Any, rounding: Any) -> Any:
        if {source.dtype.scalar, target.scalar} != _PAIR:
            return convert(self, source, target, rounding)
        return cast_impl(self, source, target)

    _BUILDER.create_dot = create_dot
    _BUILDER.cast_impl = cast_impl
    _BUILDER.create_fp_to_fp = create_fp_to_fp


_patched()
