"""Whether the entries of a header make sense, each for itself and all together."""

from __future__ import annotations

import itertools
import math
import operator
from typing import TYPE_CHECKING, Any, cast

from rankloom.tensorfile.defect import Defect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rankloom.tensorfile.header import TensorEntry

BITS: Mapping[str, int] = {
    **dict.fromkeys(["F4"], 4),
    **dict.fromkeys(["F6_E2M3", "F6_E3M2"], 6),
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"], 8),
    **dict.fromkeys(["F8_E5M2FNUZ", "F8_E4M3FNUZ"], 8),
    **dict.fromkeys(["I16", "U16", "F16", "BF16"], 16),
    **dict.fromkeys(["I32", "U32", "F32"], 32),
    **dict.fromkeys(["I64", "U64", "F64", "C64"], 64),
}
"""Bits of one value by safetensors dtype code."""

FLOATS = frozenset(["F16", "BF16", "F32", "F64"])
"""Dtypes of weights that are not quantised; each value has a bfloat16 rounding."""

_FIELDS = frozenset(["dtype", "shape", "data_offsets"])
_MAX = 1 << 64
# Line breaks and tabs are ordinary in the notes that trainers leave in the metadata.
_BREAKS = str.maketrans("\n\r\t", "   ")


def check_metadata(value: Any, limit: int) -> dict[str, str]:  # noqa: ANN401 - a JSON value
    """Return the free metadata if it maps texts to plain texts of at most ``limit`` characters.

    Raises:
        Defect: FMT004 or FMT016.
    """
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Defect("FMT004", "the metadata is not an object of strings")
    metadata = cast(dict[str, str], value)
    if sum(len(key) + len(text) for key, text in metadata.items()) > limit:
        raise Defect("FMT016", f"the metadata is longer than {limit} characters")
    for key, text in metadata.items():
        if not (key + text).translate(_BREAKS).isprintable():
            raise Defect("FMT016", f"the metadata {key[:80]!r} has control characters")
    return metadata


def check_counts(count: int, limit: int) -> None:
    """Refuse more than ``limit`` tensors.

    Raises:
        Defect: FMT011.
    """
    if count > limit:
        raise Defect("FMT011", f"the file lists {count} tensors, more than {limit}")


def check_signs(text: bytes, tensors: int, others: int) -> None:
    """Refuse a text with more values than headers have, before it is parsed.

    A value of two bytes becomes an object of a hundred: a text of 90 MB would fill gigabytes.

    Args:
        text: the header.
        tensors: how many tensors it may have.
        others: how often a sign may stand in texts and elsewhere.

    Raises:
        Defect: FMT011.
    """
    # An entry has one, two, and four besides those of its shape.
    for sign, each in ((b"{", 2), (b"[", 2), (b",", 12)):
        if (count := text.count(sign)) > each * tensors + others:
            what = f"the header has {count} times {sign.decode()!r}, more than {tensors} tensors"
            raise Defect("FMT011", what)


def check_empty(tensors: Iterable[TensorEntry], limit: int) -> None:
    """Refuse more than ``limit`` tensors without a value.

    Raises:
        Defect: FMT011.
    """
    empty = sum(tensor.start == tensor.end for tensor in tensors)
    if empty > limit:
        raise Defect("FMT011", f"{empty} tensors of the file are empty, more than {limit}")


def check_name(name: str, limit: int) -> None:
    """Refuse what cannot be a parameter's name.

    Raises:
        Defect: FMT012.
    """
    plain = 0 < len(name) <= limit and name.isprintable()
    if not plain or ".." in name or "\\" in name or name.startswith("/"):
        raise Defect("FMT012", f"{name[:80]!r} ({len(name)} characters) is no tensor name")


def read_entry(name: str, value: Any) -> tuple[str, tuple[int, ...], int, int]:  # noqa: ANN401
    """Return (dtype, shape, begin, end) of one entry; offsets count from the first data byte.

    Raises:
        Defect: FMT004, FMT006, FMT009 or FMT010.
    """
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise Defect("FMT004", f"the entry of {name!r} has not exactly dtype, shape, data_offsets")
    dtype, shape = value["dtype"], value["shape"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise Defect("FMT010", f"{name!r} has the unknown dtype {str(dtype)[:40]!r}")
    offsets = _numbers(value["data_offsets"])
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Defect("FMT006", f"{name!r} has the offsets {str(value['data_offsets'])[:80]}")
    sizes = _numbers(shape)
    if sizes is None:
        raise Defect("FMT009", f"{name!r} has the shape {str(shape)[:80]}")
    _check_size(name, sizes, BITS[dtype], offsets[1] - offsets[0])
    return dtype, sizes, offsets[0], offsets[1]


def _numbers(value: Any) -> tuple[int, ...] | None:  # noqa: ANN401 - a JSON value
    if not isinstance(value, list):
        return None
    # type() rather than isinstance(): True is an int, too.
    return tuple(value) if all(type(n) is int and 0 <= n < _MAX for n in value) else None


def _check_size(name: str, shape: tuple[int, ...], bits: int, nbytes: int) -> None:
    # Readers multiply from the left in 64 bits, so a zero at the end does not undo an overflow.
    if any(part >= _MAX for part in itertools.accumulate((*shape, bits), operator.mul)):
        raise Defect("FMT009", f"the size of {name!r} with shape {list(shape)[:8]} overflows")
    total = math.prod(shape) * bits
    if total != nbytes * 8:
        spoken = f"{list(shape)[:8]} needs {total / 8:g} bytes, its offsets hold {nbytes}"
        raise Defect("FMT009", f"{name!r} with shape {spoken}")


def check_cover(tensors: Iterable[TensorEntry], data: int, size: int) -> None:
    """Demand that tensors lie one behind the other and fill the file.

    Args:
        tensors: all tensors of the file.
        data: offset of the first data byte in the file.
        size: length of the file.

    Raises:
        Defect: FMT006 (overlap or hole), FMT007 (bytes behind the last), FMT008 (truncated).
    """
    cursor = data
    for tensor in sorted(tensors, key=operator.attrgetter("start", "end")):
        if tensor.start != cursor:
            what = "overlaps another" if tensor.start < cursor else "leaves a hole before it"
            message = f"{tensor.name!r} {what}: it begins at {tensor.start}, not {cursor}"
            raise Defect("FMT006", message)
        cursor = tensor.end
    if cursor > size:
        message = f"the tensors need {cursor} bytes, the file has {size}"
        raise Defect("FMT008", message, "copy or save the file again, it is incomplete")
    if cursor < size:
        raise Defect("FMT007", f"{size - cursor} bytes lie behind the last tensor")
