"""The blobs of a manifest as a folder, hashed on the way, so that the library can read them."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from rankloom import digest as digests
from rankloom.errors import ConflictError

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.manifest import FileEntry, Manifest
    from rankloom_server.store.interface import Store


def materialise(store: Store, manifest: Manifest, folder: Path) -> dict[str, str]:
    """Put every file of the manifest under its path in ``folder``; each blob is read once.

    Returns:
        What is wrong with blobs whose stored bytes have another size or digest than declared.

    Raises:
        ConflictError: blobs are not there (yet); all of them are named.
    """
    _check_present(store, manifest)
    damage: dict[str, str] = {}
    done: dict[str, Path] = {}
    for entry in manifest.files:
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.digest in done:
            os.link(done[entry.digest], target)
            continue
        found = _place(store, entry, target)
        if found != (entry.size, entry.digest):
            damage[entry.digest] = _difference(entry, *found)
        done[entry.digest] = target
    return damage


def _check_present(store: Store, manifest: Manifest) -> None:
    absent = [entry.path for entry in manifest.files if store.size(entry.digest) is None]
    if absent:
        message = f"the upload is not complete: {', '.join(absent)} did not arrive"
        raise ConflictError(message, hint="send the missing blobs, then publish again")


def _place(store: Store, entry: FileEntry, target: Path) -> tuple[int, str]:
    """Link or copy one blob; return the size and the digest that it really has."""
    file = store.file(entry.digest)
    if file is not None and _link(file, target):
        return target.stat().st_size, digests.of_file(target)
    seen, sha = 0, hashlib.sha256()
    with target.open("wb") as stream:
        for chunk in store.read(entry.digest):
            seen += len(chunk)
            if seen > entry.size:
                break  # whatever the store sends, the disk takes no more than was declared
            sha.update(chunk)
            stream.write(chunk)
    return seen, f"sha256:{sha.hexdigest()}"


def _link(file: Path, target: Path) -> bool:
    try:
        os.link(file, target)
    except OSError:
        return False  # another file system, or one without links: the bytes are copied
    return True


def _difference(entry: FileEntry, size: int, digest: str) -> str:
    return (
        f"REG001 {entry.path} is corrupt in the store: declared {entry.size} bytes and "
        f"{entry.digest}, found {size} bytes and {digest}"
    )
