"""Digests: ``sha256:<hex>`` of bytes, and the canonical JSON that makes them repeatable."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from rankloom.errors import RefError

if TYPE_CHECKING:
    from pathlib import Path

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")
CHUNK = 1 << 20
"""Bytes per read while hashing: large enough for full speed, small enough for any cache."""


def parse(text: str) -> str:
    """Return ``text`` if it is a digest.

    Raises:
        RefError: it is not ``sha256:`` and 64 lower-case hex digits.
    """
    if not _PATTERN.fullmatch(text):
        message = f"{text[:80]!r} is not a digest"
        raise RefError(message, hint="a digest is 'sha256:' and 64 lower-case hex digits")
    return text


def of_bytes(data: bytes | memoryview) -> str:
    """Return the digest of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    """Return the digest of a file's bytes, read once in chunks."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def of_json(value: object) -> str:
    """Return the digest of a JSON value's canonical form."""
    return of_bytes(canonical_json(value))


def canonical_json(value: object) -> bytes:
    """Return the one form in which we hash JSON: sorted keys, no spaces, UTF-8, no NaN.

    Numbers print as Python prints them (shortest form that reads back the same, as RFC 8785).

    Raises:
        ValueError: a float is NaN or infinite.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
