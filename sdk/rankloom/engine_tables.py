"""The digest of all by which engines are judged, so that what is recorded tells when it is old."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parent

_ROOMS = ("adapter", "base", "tensorfile", "validate", "registry/base_record.py")
"""Where the code lies that reads an adapter and a base's record, and judges them."""

_READ = {".py", ".toml", ".json"}
"""Endings of the files that are read there."""


@cache
def digest() -> str:
    """Return 16 hex digits over the engines' files and the code that reads and judges adapters.

    Files are read, not imported, for who only asks whether a verdict is old needs none of them.
    Any change counts, also of a comment: judging again costs little, an old verdict may be wrong.
    """
    found = hashlib.sha256()
    for file in _files():
        name = file.relative_to(_PACKAGE).as_posix()
        found.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:16]


def _files() -> list[Path]:
    rooms = [_PACKAGE / room for room in _ROOMS]
    inside = [file for room in rooms if room.is_dir() for file in room.rglob("*")]
    # Only by their endings: Python itself writes other files beside them, for moments too.
    kept = [file for file in inside if file.suffix in _READ]
    return sorted([*kept, *(room for room in rooms if room.is_file())])
