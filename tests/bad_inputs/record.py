"""The record that a pulled or composed folder carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapter_folder import manifest_of
from rankloom.base import reader
from rankloom.base.fingerprint import fingerprint

if TYPE_CHECKING:
    from pathlib import Path


def recorded(folder: Path, base: Path | None = None) -> Path:
    """Give a folder its record, of a base too, and return the folder."""
    found = fingerprint(reader.read(base)) if base else None
    content = manifest_of(folder, found).canonical()
    (folder / "rankloom.json").write_bytes(content)
    return folder
