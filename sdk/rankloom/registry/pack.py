"""From an adapter's folder to the manifest that names its content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom import digest
from rankloom.errors import IntegrityError
from rankloom.manifest import RECORD, FileEntry, Manifest

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.adapter.reader import Adapter
    from rankloom.fingerprint import Fingerprint

CARD = "README.md"
"""The card may be rewritten at any time, so it lies beside a version, not in it."""


def pack(adapter: Adapter, base: Fingerprint | None = None) -> Manifest:
    """Return the manifest of an adapter: its files hashed, its base, its lineage.

    ``base`` wins over the fingerprint that the folder's record carries.

    Raises:
        IntegrityError: the folder's record was made for other files than the ones that lie there.
    """
    files = tuple(_entry(adapter.path, path) for path in adapter.files if path.name != CARD)
    record = adapter.record
    if record is None:
        return Manifest(files=files, base=base)
    _check_record(adapter.path, record, files)
    return Manifest(files=files, base=base or record.base, lock=record.lock)


def card(adapter: Adapter) -> str | None:
    """Return the text of the adapter's card, if its folder has one."""
    path = adapter.path / CARD
    return path.read_text("utf-8", errors="replace") if path.is_file() else None


def _entry(folder: Path, path: Path) -> FileEntry:
    relative = path.relative_to(folder).as_posix()
    return FileEntry(path=relative, size=path.stat().st_size, digest=digest.of_file(path))


def _check_record(folder: Path, record: Manifest, files: tuple[FileEntry, ...]) -> None:
    recorded = {entry.path: entry.digest for entry in record.files}
    found = {entry.path: entry.digest for entry in files}
    if changed := sorted(
        path for path in recorded | found if recorded.get(path) != found.get(path)
    ):
        message = f"REG002 {folder / RECORD} speaks of other bytes: {', '.join(changed)} changed"
        hint = f"pull again; or, if you changed the files on purpose, delete {RECORD}"
        raise IntegrityError(message, hint=hint)
