"""From an adapter's folder to the manifest that names its content."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from rankloom import digest
from rankloom.errors import AdapterError, IntegrityError
from rankloom.manifest import MAX_CARD, RECORD, FileEntry, Manifest
from rankloom.registry import crew

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    files = entries(adapter.path, [path for path in adapter.files if path.name != CARD])
    record = adapter.record
    if record is None:
        return Manifest(files=files, base=base)
    _check_record(adapter.path, record, files)
    return Manifest(files=files, base=base or record.base, lock=record.lock)


def card(adapter: Adapter) -> str | None:
    """Return the text of the adapter's card, if its folder has one.

    Raises:
        AdapterError: it is longer than a registry keeps.
    """
    path = adapter.path / CARD
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as stream:
        text = stream.read(MAX_CARD + 1)
    if len(text) > MAX_CARD:
        message = f"{path} is longer than the {MAX_CARD} characters of a card"
        raise AdapterError(message, hint="shorten it, or keep what is long in a file elsewhere")
    return text


def entries(folder: Path, paths: Sequence[Path]) -> tuple[FileEntry, ...]:
    """Return the entries of files in ``folder``, hashed by several threads."""
    found: dict[Path, FileEntry] = {}

    def work(path: Path) -> None:
        relative, size = path.relative_to(folder).as_posix(), path.stat().st_size
        found[path] = FileEntry(path=relative, size=size, digest=digest.of_file(path))

    crew.run([functools.partial(work, path) for path in paths])
    return tuple(found[path] for path in paths)


def _check_record(folder: Path, record: Manifest, files: tuple[FileEntry, ...]) -> None:
    recorded = {entry.path: entry.digest for entry in record.files}
    found = {entry.path: entry.digest for entry in files}
    if changed := sorted(
        path for path in recorded | found if recorded.get(path) != found.get(path)
    ):
        message = f"REG002 {folder / RECORD} speaks of other bytes: {', '.join(changed)} changed"
        hint = f"pull again; or, if you changed the files on purpose, delete {RECORD}"
        raise IntegrityError(message, hint=hint)
