"""Fingerprints kept between runs, under what the file system knows of a base's files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rankloom import digest, files
from rankloom.fingerprint import Fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.base.model import Base

_VERSION = 1


def key(base: Base) -> str:
    """Return a name for the state of a base's files: path, size and time of each, and config."""
    states: list[Any] = []
    for file in base.files:
        state = file.stat()
        states.append([str(file.absolute()), state.st_size, state.st_mtime_ns])
    return digest.of_json([_VERSION, states, base.config]).removeprefix("sha256:")


def load(cache: Path, name: str) -> Fingerprint | None:
    """Return the fingerprint kept under a name; anything unreadable counts as nothing."""
    try:
        return Fingerprint.model_validate_json((cache / f"{name}.json").read_bytes())
    except (OSError, ValidationError):
        return None


def store(cache: Path, name: str, fingerprint: Fingerprint) -> None:
    """Keep a fingerprint; a cache that cannot be written costs time only."""
    try:
        files.write_atomic(cache / f"{name}.json", fingerprint.model_dump_json().encode())
    except OSError:
        return
