"""Fingerprints kept between runs, under what the file system knows of a base's files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rankloom import digest, files
from rankloom.errors import DiskError
from rankloom.fingerprint import Fingerprint
from rankloom.message import Digest, Message

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rankloom.base.model import Base

_VERSION = 2


def key(base: Base) -> str:
    """Return a name for the state of a base's files: path, size and time of each, and config."""
    states: list[Any] = []
    for file in base.files:
        state = file.stat()
        states.append([str(file.absolute()), state.st_size, state.st_mtime_ns])
    return digest.of_json([_VERSION, states, base.config]).removeprefix("sha256:")


class Kept(Message):
    """What is kept of a base: its fingerprint, and the digest of each tensor."""

    fingerprint: Fingerprint
    leaves: dict[str, Digest]


def load(cache: Path, name: str) -> Kept | None:
    """Return what is kept under a name; anything unreadable counts as nothing."""
    try:
        return Kept.model_validate_json((cache / f"{name}.json").read_bytes())
    except (OSError, ValidationError):
        return None


def recall(cache: Path, fingerprint: Fingerprint) -> Kept | None:
    """Return what is kept of a base that was hashed on this machine, wherever it lay."""
    return load(cache, _content_name(fingerprint)) if fingerprint.exact else None


def _content_name(fingerprint: Fingerprint) -> str:
    return f"content-{(fingerprint.exact or '').removeprefix('sha256:')}"


def store(cache: Path, name: str, fingerprint: Fingerprint, leaves: Mapping[str, str]) -> None:
    """Keep a fingerprint; a cache that cannot be written costs time only."""
    kept = Kept(fingerprint=fingerprint, leaves=dict(leaves))
    try:
        for key in (name, _content_name(fingerprint)):
            files.write_atomic(cache / f"{key}.json", kept.model_dump_json().encode())
    except DiskError:
        return
