"""The manifest: the content of a version, whose digest is the version's identity.

A folder that was pulled or composed carries its manifest as ``rankloom.json`` beside the files, so
that it keeps its base and lineage without a registry. The file itself is never part of a version.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, ValidationError

from rankloom import digest as digests
from rankloom import ref
from rankloom.errors import AdapterError
from rankloom.fingerprint import Fingerprint
from rankloom.message import Digest, Message

RECORD = "rankloom.json"
MAX_FILES = 64
MAX_FILE_BYTES = 5 << 30
"""One PUT to S3 carries at most 5 GiB."""
MAX_CARD = 1 << 16
"""Characters of the card beside a version."""
MAX_RECORD_BYTES = 16 << 20
"""A lock has some kilobytes for each adapter."""

_BY_HAND = f"remove {RECORD} if you changed it by hand"


def _check_path(path: str) -> str:
    pure = PurePosixPath(path)
    plain = str(pure) == path and pure.parts and not pure.is_absolute() and "\\" not in path
    odd = any(part in {"..", "."} or ref.is_reserved(part) for part in pure.parts)
    if not plain or odd or not path.isprintable():
        message = f"SEC004 {path[:80]!r} is not a plain relative path"
        raise ValueError(message)
    return path


FilePath = Annotated[
    str, StringConstraints(min_length=1, max_length=255), AfterValidator(_check_path)
]


class FileEntry(Message):
    """One file of a version: its path in the folder, its size in bytes, its digest."""

    path: FilePath
    size: int = Field(ge=0, le=MAX_FILE_BYTES)
    digest: Digest


class Manifest(Message):
    """The content of a version: its files, the base they were made for, and its lineage.

    ``lock`` is the lock of the composition that made the files, if one did.
    """

    # A NaN must reach canonical_json, which refuses it, and not turn into null on the way.
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_alias=True, ser_json_inf_nan="constants"
    )

    schema_: Literal[1] = Field(default=1, alias="schema")
    files: Annotated[tuple[FileEntry, ...], Field(min_length=1, max_length=MAX_FILES)]
    base: Fingerprint | None = None
    lock: dict[str, Any] | None = None

    def canonical(self) -> bytes:
        """Return the bytes whose digest names the version (files sorted by path)."""
        value = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        value["files"].sort(key=lambda entry: entry["path"])
        return digests.canonical_json(value)

    @property
    def digest(self) -> str:
        """The version's digest."""
        return digests.of_bytes(self.canonical())

    def record(self) -> bytes:
        """Return the bytes of the file ``rankloom.json`` beside the files."""
        return self.canonical() + b"\n"


def read_record(folder: Path) -> Manifest | None:
    """Return the manifest that a folder carries, or ``None`` if it carries none.

    Raises:
        AdapterError: the file is there but is no manifest.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_RECORD_BYTES:
        message = f"CFG001 {path} is larger than {MAX_RECORD_BYTES} bytes"
        raise AdapterError(message, hint=_BY_HAND)
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        message = f"CFG001 {path} is not a manifest: {error.errors()[0]['msg']}"
        raise AdapterError(message, hint=_BY_HAND) from error
