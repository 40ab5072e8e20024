"""The header of a safetensors file (format: https://github.com/huggingface/safetensors).

Stricter than the format's own library where that one lets two readers see two different files:
duplicate keys, names that are no names, thousands of empty tensors. Whatever is accepted here is
accepted there. Nothing of a file but its header is read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.errors import AdapterError, NotFoundError
from rankloom.tensorfile import disguise, entries, strict_json
from rankloom.tensorfile.defect import Defect

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rankloom.errors import RankloomError
    from rankloom.finding import Finding

LENGTH_BYTES = 8
"""A file begins with the header's length as an unsigned little-endian 64-bit number."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file, not loaded.

    Attributes:
        path: the file that holds the bytes.
        name: its key in the file.
        dtype: safetensors code (``"F32"``, ``"BF16"``, …).
        shape: sizes, outermost first.
        start: offset of its first byte in the file.
        end: offset behind its last byte in the file.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Header:
    """All tensors of one file, in key order as the file lists them, and its metadata.

    ``findings`` holds what is odd but harmless (FMT013).
    """

    path: Path
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """How large the parts of a header may be.

    Attributes:
        header_bytes: the JSON text; the format's own library draws the same line.
        tensors: a mixture of experts with an adapter on every expert has about 72 000.
        empty_tensors: tensors without a value, of which no real file has more than a few.
        name_chars: length of a key.
        metadata_chars: the free metadata, keys and values.
    """

    header_bytes: int = 100_000_000
    tensors: int = 1 << 17
    empty_tensors: int = 64
    name_chars: int = 512
    metadata_chars: int = 1 << 16


LIMITS = HeaderLimits()
_INCOMPLETE = "copy or save the file again, it is incomplete"


def read_header(
    path: Path, *, limits: HeaderLimits = LIMITS, error: type[RankloomError] = AdapterError
) -> Header:
    """Read and check the header of a file.

    Args:
        path: the file.
        limits: bounds on the header's parts.
        error: class of the error for a broken file (``BaseError`` when it belongs to a base).

    Raises:
        NotFoundError: there is no such file.
        AdapterError: (or ``error``) the file is broken; ``findings`` holds the one defect.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            prefix = stream.read(LENGTH_BYTES)
            length = header_length(prefix, size, path, limits=limits, error=error)
            prefix += stream.read(length)
    except FileNotFoundError as missing:
        message = f"{path} does not exist"
        raise NotFoundError(message, hint="check the path") from missing
    return parse_header(prefix, size, path, limits=limits, error=error)


def header_length(
    prefix: bytes,
    size: int,
    path: Path,
    *,
    limits: HeaderLimits = LIMITS,
    error: type[RankloomError] = AdapterError,
) -> int:
    """Return the length in bytes of the JSON behind the first eight bytes.

    Args:
        prefix: the first bytes of the file, eight suffice.
        size: length of the whole file in bytes.
        path: the file, for messages.
        limits: bounds on the header's parts.
        error: class of the error for a broken file.

    Raises:
        AdapterError: (or ``error``) no such header fits into the file.
    """
    try:
        return _length(prefix, size, limits)
    except Defect as defect:
        raise _error(disguise.explain(defect, prefix), path, error) from None


def parse_header(
    prefix: bytes,
    size: int,
    path: Path,
    *,
    limits: HeaderLimits = LIMITS,
    error: type[RankloomError] = AdapterError,
) -> Header:
    """Check a header whose bytes are here already, e.g. from a range read.

    Args:
        prefix: the file's first bytes, at least eight and the header behind them.
        size: length of the whole file in bytes.
        path: the file that the entries shall name.
        limits: bounds on the header's parts.
        error: class of the error for a broken file.

    Raises:
        AdapterError: (or ``error``) the file is broken; ``findings`` holds the one defect.
    """
    try:
        length = _length(prefix, size, limits)
        text = prefix[LENGTH_BYTES : LENGTH_BYTES + length]
        if len(text) < length:
            raise Defect("FMT003", f"the header ends after {len(text)} of {length} bytes")
        return _parse(text, size, path, limits)
    except Defect as defect:
        raise _error(disguise.explain(defect, prefix), path, error) from None


def _length(prefix: bytes, size: int, limits: HeaderLimits) -> int:
    if size < LENGTH_BYTES or len(prefix) < LENGTH_BYTES:
        raise Defect("FMT001", f"the file has {size} bytes, too few for a header", _INCOMPLETE)
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > limits.header_bytes:
        raise Defect("FMT002", f"the header claims {length} bytes, over {limits.header_bytes}")
    if length > size - LENGTH_BYTES:
        raise Defect("FMT003", f"the header claims {length} bytes of a file of {size}", _INCOMPLETE)
    return length


def _parse(text: bytes, size: int, path: Path, limits: HeaderLimits) -> Header:
    entries.check_signs(text, limits.tensors, limits.metadata_chars)
    header = strict_json.load_object(text)
    metadata = entries.check_metadata(header.pop("__metadata__", {}), limits.metadata_chars)
    entries.check_counts(len(header), limits.tensors)
    data = LENGTH_BYTES + len(text)
    tensors: dict[str, TensorEntry] = {}
    for name, value in header.items():
        entries.check_name(name, limits.name_chars)
        dtype, shape, begin, end = entries.read_entry(name, value)
        tensors[name] = TensorEntry(path, name, dtype, shape, data + begin, data + end)
    entries.check_cover(tensors.values(), data, size)
    entries.check_empty(tensors.values(), limits.empty_tensors)
    return Header(path, tensors, metadata, tuple(_oddities(text, path)))


def _oddities(text: bytes, path: Path) -> list[Finding]:
    aligned = len(text) % LENGTH_BYTES == 0
    if aligned and text.startswith(b"{"):
        return []
    what = "its data is not aligned to 8 bytes" if not aligned else "blanks precede its header"
    return [Defect("FMT013", what, "save it again with safetensors").warning(path)]


def _error(defect: Defect, path: Path, error: type[RankloomError]) -> RankloomError:
    finding = defect.finding(path)
    return error(f"{finding.rule} {finding.message}", hint=finding.fix, findings=[finding])
