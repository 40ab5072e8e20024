"""The digest of all by which engines are judged, so that what is recorded tells when it is old."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_ROOM = Path(__file__).parent / "validate" / "engines"


@cache
def digest() -> str:
    """Return 16 hex digits over the engines' files and the code that finds their features.

    Files are read, not imported, for who only asks whether a verdict is old needs none of them.
    Any change counts, also of a comment: judging again costs little, an old verdict may be wrong.
    """
    found = hashlib.sha256()
    for file in sorted((*_ROOM.glob("*.py"), *_ROOM.glob("data/*.toml"))):
        found.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:16]
