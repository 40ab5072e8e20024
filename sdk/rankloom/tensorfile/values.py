"""The values of one tensor of a file as numpy arrays, in bounded memory where that matters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np

from rankloom.errors import BackendUnavailableError, IntegrityError
from rankloom.tensorfile.entries import FLOATS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    import numpy.typing as npt

    from rankloom.tensorfile.header import TensorEntry

    Bits = npt.NDArray[np.uint16]
    Floats = npt.NDArray[np.floating[Any]]

CHUNK = 4 << 20
"""Bytes per read: long enough for full disk and hash speed; a multiple of every value's size."""

_PROBE = 1 << 14
"""Bytes per read where the first few mostly decide."""

_NATIVE = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "C64": "<c8",
}


def load_numpy(entry: TensorEntry) -> npt.NDArray[Any]:
    """Return the values of a tensor.

    Args:
        entry: the tensor.

    Returns:
        An array of ``entry.shape``: BF16, F8_E4M3 and F8_E5M2 as float32 (exactly), all others in
        their own type.

    Raises:
        BackendUnavailableError: numpy has no exact counterpart of the dtype.
        IntegrityError: the file became shorter since its header was read.
    """
    with entry.path.open("rb") as stream:
        stream.seek(entry.start)
        raw = bytearray(entry.end - entry.start)
        if stream.readinto(raw) != len(raw):
            raise _shortened(entry)
    values: npt.NDArray[Any] = decode(memoryview(raw), entry.dtype, entry.name)
    return np.reshape(values, entry.shape)


def load_bits(entry: TensorEntry) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return the bits of a tensor's values, whatever they mean, as unsigned integers.

    Raises:
        IntegrityError: the file became shorter since its header was read.
    """
    raw = b"".join(bytes(view) for view in raw_chunks(entry))
    size = len(raw) // max(1, math.prod(entry.shape))
    return np.frombuffer(raw, f"<u{size}").reshape(entry.shape)


def decode(raw: memoryview, dtype: str, name: str = "tensor") -> npt.NDArray[Any]:
    """Return raw little-endian values as a flat array, as :func:`load_numpy` does."""
    if native := _NATIVE.get(dtype):
        values: npt.NDArray[Any] = np.frombuffer(raw, native)
        return values
    if dtype == "BF16":
        wide = np.frombuffer(raw, "<u2").astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if dtype == "F8_E5M2":  # its bits are the upper half of a float16
        return (np.frombuffer(raw, "u1").astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    if dtype == "F8_E4M3":
        return np.take(_E4M3, np.frombuffer(raw, "u1"))
    message = f"{name} has dtype {dtype}, for which there is no exact numpy type"
    raise BackendUnavailableError(message, hint="save it as float32, float16 or bfloat16")


def _e4m3_values() -> Floats:
    """Return the 256 values of float8 e4m3fn (OCP 8-bit floating point specification, table 1)."""

    def value(code: int) -> float:
        sign, exponent, mantissa = -1.0 if code & 0x80 else 1.0, code >> 3 & 0xF, code & 7
        if code & 0x7F == 0x7F:
            return math.copysign(math.nan, sign)
        if exponent == 0:
            return sign * mantissa * 2.0**-9
        return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)

    return np.array([value(code) for code in range(256)], np.float32)


_E4M3 = _e4m3_values()


def raw_chunks(entry: TensorEntry, chunk: int = CHUNK) -> Iterator[memoryview]:
    """Yield the bytes of a tensor in order.

    Each view is valid until the next one is asked for: all share one buffer.

    Args:
        entry: the tensor.
        chunk: bytes per view, a multiple of eight so that no value is split.

    Raises:
        IntegrityError: the file became shorter since its header was read.
    """
    left = entry.end - entry.start
    buffer = memoryview(bytearray(min(chunk, left)))
    with entry.path.open("rb", buffering=0) as stream:
        stream.seek(entry.start)
        while left:
            view = buffer[: min(chunk, left)]
            _fill(stream.readinto, view, entry)
            left -= len(view)
            yield view


def _fill(readinto: Any, view: memoryview, entry: TensorEntry) -> None:  # noqa: ANN401
    filled = 0
    while filled < len(view):  # one read(2) returns at most 2 GiB, and may return less
        got = cast(int, readinto(view[filled:]))
        if not got:
            raise _shortened(entry)
        filled += got


def _shortened(entry: TensorEntry) -> IntegrityError:
    message = f"REG002 {entry.path} ended within {entry.name}: it changed while it was read"
    return IntegrityError(message, hint="repeat when nothing else writes the file")


def bf16_bits(values: Floats) -> Bits:
    """Return the bits of the nearest bfloat16 of each value, ties to even, as torch casts.

    Float64 goes through float32 first, as in torch. A NaN keeps its upper bits, so that every
    bfloat16, NaN or not, comes back from float32 unchanged.

    Args:
        values: an array of float16, float32 or float64.
    """
    with np.errstate(over="ignore"):  # a float64 beyond float32 is an infinity there as well
        single = np.ascontiguousarray(values, np.float32)
    bits = single.view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits  # may wrap for a NaN, which is replaced below
    rounded >>= 16
    result = rounded.astype(np.uint16)
    nan = np.isnan(single)
    if nan.any():
        upper = (bits[nan] >> 16).astype(np.uint16)
        result[nan] = np.where(upper & 0x7F, upper, upper | 0x40)
    return result


def bf16_chunks(entry: TensorEntry, chunk: int = CHUNK) -> Iterator[memoryview]:
    """Yield the bytes that a floating tensor has after rounding to bfloat16 (little-endian)."""
    for view in raw_chunks(entry, chunk):
        yield bf16_view(view, entry.dtype)


def bf16_view(raw: memoryview, dtype: str) -> memoryview:
    """Return raw values of a dtype of :data:`FLOATS`, rounded to bfloat16, as raw values."""
    if dtype == "BF16":
        return raw
    return bf16_bits(decode(raw, dtype)).astype("<u2", copy=False).data.cast("B")


def is_finite(entry: TensorEntry) -> bool:
    """Tell whether no value is NaN or infinite (true for integers), in bounded memory."""
    if entry.dtype not in {*FLOATS, "C64", "F8_E5M2", "F8_E4M3"}:
        return True
    return all(_finite(view, entry.dtype) for view in raw_chunks(entry))


def _finite(view: memoryview, dtype: str) -> bool:
    if dtype in {"F16", "BF16"}:  # all exponent bits set: NaN or infinite
        mask = 0x7C00 if dtype == "F16" else 0x7F80
        return bool(((np.frombuffer(view, "<u2") & mask) != mask).all())
    return bool(np.isfinite(decode(view, dtype)).all())


def is_zero(entry: TensorEntry) -> bool:
    """Tell whether every value is zero (of either sign); reading ends where one is not."""
    with np.errstate(invalid="ignore"):  # NaNs of the signalling kind are not zero either
        return not any(decode(view, entry.dtype).any() for view in raw_chunks(entry, _PROBE))
