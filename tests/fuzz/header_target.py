"""Fuzzes the reader of safetensors headers: ``make fuzz``.

Whatever our reader accepts, safetensors itself reads, with the same names, dtypes, shapes and
metadata; and whatever it refuses, it refuses by an error of ours.

An input is a file, or (with an odd first byte) the text of a header, to which length and data are
added, so that the fuzzer need not guess them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import atheris

with atheris.instrument_imports(include=["rankloom.tensorfile"]):
    from rankloom.errors import RankloomError
    from rankloom.tensorfile.header import parse_header

import safetensors

LARGEST = 1 << 16


def file_of(data: bytes) -> bytes:
    """Return the file that an input means."""
    if not data or data[0] % 2 == 0:
        return data[1:]
    text = data[1:]
    return len(text).to_bytes(8, "little") + text + bytes(_data_length(text))


def _data_length(text: bytes) -> int:
    """Return the end of the last tensor, if the text is a header."""
    header = _parsed(text)
    ends = [entry["data_offsets"][1] for entry in header.values() if _is_entry(entry)]
    return min(max([0, *ends]), LARGEST)


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def check(data: bytes) -> None:
    """Fail if the two readers see different files."""
    file = file_of(data)
    try:
        ours = parse_header(file, len(file), Path("fuzzed.safetensors"))
    except RankloomError as error:
        if not error.findings:
            raise  # a refusal names its rule
        return
    theirs = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in _read(file)}
    found = {name: (entry.dtype, entry.shape) for name, entry in ours.tensors.items()}
    assert found == theirs, (found, theirs)
    for name, entry in _read(file):
        own = ours.tensors[name]
        assert bytes(entry["data"]) == file[own.start : own.end]


def _read(file: bytes) -> list[tuple[str, dict[str, object]]]:
    found: list[tuple[str, dict[str, object]]] = safetensors.deserialize(file)
    return found


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change a header as JSON, so that most inputs get beyond its syntax; else change bytes."""
    random = Random(seed)  # noqa: S311 - it need not be secret
    header = _parsed(data[1:]) if data and data[0] % 2 else {}
    if not header or random.random() < 0.3:
        found: bytes = atheris.Mutate(data, max_size)
        return found
    text = json.dumps(_changed(header, random))
    return (b"\1" + text.encode("utf-8", "surrogatepass"))[:max_size]


def _changed(header: dict[str, Any], random: Random) -> dict[str, Any]:
    name = random.choice(list(header))
    value = header[name]
    if random.random() < 0.3:
        end = max((e["data_offsets"][1] for e in header.values() if _is_entry(e)), default=0)
        entry = {"dtype": "U8", "shape": [2, 2], "data_offsets": [end, end + 4]}
        return {**header, random.choice(NAMES): entry}
    if not isinstance(value, dict) or random.random() < 0.2:
        return {**header, name: random.choice(VALUES)}
    field = random.choice([*value, "dtype"])
    return {**header, name: {**value, field: random.choice(VALUES)}}


def _is_entry(value: object) -> bool:
    offsets = value.get("data_offsets") if isinstance(value, dict) else None
    return isinstance(offsets, list) and len(offsets) == 2 and type(offsets[1]) is int


NAMES = ["a", "b.c", "", "__metadata__", "\0", "../x", "\ud800", "é", "n" * 600]
VALUES: list[Any] = [
    "F32", "F16", "BF16", "U8", "F4", "F8_E4M3", "C64", "BOOL", "f32", "x", None, True, 0, -1, 1.0,
    1 << 64, [], [0], [2], [0, 0], [0, 4], [4, 8], [8, 0], [1 << 63, 4], [True], [2.0],
    {}, {"a": "b"},
]  # fmt: skip


if __name__ == "__main__":
    atheris.Setup(sys.argv, check, custom_mutator=mutate)
    atheris.Fuzz()
