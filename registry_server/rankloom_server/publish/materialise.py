"""The blobs of a manifest as a folder, hashed on the way, so that the library can read them."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from rankloom import digest as digests
from rankloom.adapter.config import FILE as CONFIG
from rankloom.adapter.folder import TENSORS
from rankloom.errors import ConflictError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rankloom.manifest import FileEntry, Manifest
    from rankloom_server.store.interface import Store


_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header."""


def materialise(store: Store, manifest: Manifest, folder: Path) -> dict[str, str]:
    """Put every file of the manifest under its path in ``folder``; each blob is read once.

    Returns:
        What is wrong with blobs whose stored bytes have another size or digest than declared.

    Raises:
        ConflictError: blobs are not there (yet); all of them are named.
    """
    _check_present(store, manifest.files)
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


def materialise_headers(store: Store, manifest: Manifest, folder: Path) -> None:
    """Put a published adapter's config into ``folder``, and its tensors' file as far as its header.

    Behind the header is a hole, for who reads headers asks only for the size. Where the store is a
    folder of this machine, both are links.

    Raises:
        ConflictError: a blob is not there.
        IntegrityError: the stored config has other bytes than declared.
    """
    files = [entry for entry in manifest.files if entry.path in {CONFIG, TENSORS}]
    _check_present(store, files)
    for entry in files:
        file, target = store.file(entry.digest), folder / entry.path
        if entry.path == TENSORS and not (file and _link(file, target)):
            _place_header(store, entry, target)
        elif entry.path == CONFIG and (found := _place(store, entry, target)) != (
            entry.size,
            entry.digest,
        ):
            hint = "'loractl admin fsck --rehash --repair', then push the same content again"
            raise IntegrityError(_difference(entry, *found), hint=hint)


def _place_header(store: Store, entry: FileEntry, target: Path) -> None:
    seen, head = 0, b""
    with target.open("wb") as stream:
        for chunk in store.read(entry.digest):
            stream.write(chunk)
            seen += len(chunk)
            head += chunk[: _LENGTH_BYTES - len(head)]
            wanted = _LENGTH_BYTES + int.from_bytes(head, "little")
            if len(head) == _LENGTH_BYTES and seen >= wanted:
                break
        stream.truncate(entry.size)


def _check_present(store: Store, files: Iterable[FileEntry]) -> None:
    absent = [entry.path for entry in files if store.size(entry.digest) is None]
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
