"""The blobs of a manifest as a folder, hashed on the way, so that the library can read them."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from rankloom import digest as digests
from rankloom.adapter.config import FILE as CONFIG
from rankloom.adapter.folder import TENSORS
from rankloom.errors import ConflictError, IntegrityError
from rankloom.tensorfile.header import LENGTH_BYTES, LIMITS

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.manifest import FileEntry, Manifest
    from rankloom_server.store.interface import Store

_SENT_ANEW = "'loractl admin fsck --rehash --repair', then push the same content again"


def check_arrived(store: Store, manifest: Manifest) -> None:
    """Refuse an upload whose blobs are not all in the store.

    Raises:
        ConflictError: blobs are not there (yet); all of them are named.
    """
    absent = [entry.path for entry in manifest.files if store.size(entry.digest) is None]
    if absent:
        message = f"the upload is not complete: {', '.join(absent)} did not arrive"
        raise ConflictError(message, hint="send the missing blobs, then publish again")


def materialise(store: Store, manifest: Manifest, folder: Path) -> dict[str, str]:
    """Put every file of the manifest under its path in ``folder``; each blob is read once.

    Returns:
        What is wrong with blobs whose stored bytes have another size or digest than declared.

    Raises:
        NotFoundError: a blob is not there.
    """
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
            damage[entry.digest] = _difference(entry, entry.digest, *found)
        done[entry.digest] = target
    return damage


def rematerialise(store: Store, manifest: Manifest, folder: Path) -> None:
    """Put every file of a published version into ``folder``.

    Raises:
        IntegrityError: blobs are lost, or have other bytes than were published.
    """
    _sizes(store, manifest.files)
    if damage := materialise(store, manifest, folder):
        raise IntegrityError("; ".join(damage.values()), hint=_SENT_ANEW)


def materialise_headers(store: Store, manifest: Manifest, folder: Path, header: str) -> None:
    """Put a published adapter's config into ``folder``, and its tensors' file as far as its header.

    Behind the header is a hole, for who reads headers asks only for the size. Where the store is a
    folder of this machine, both are links.

    Args:
        store: the blobs of its namespace.
        manifest: the version's.
        folder: where to.
        header: what :func:`header_digest` returned when the file's own digest was verified.

    Raises:
        IntegrityError: a blob is lost, or config or header have other bytes than were published.
    """
    files = tuple(entry for entry in manifest.files if entry.path in {CONFIG, TENSORS})
    sizes = _sizes(store, files)
    for entry in files:
        target, expected = folder / entry.path, entry.digest
        if entry.path == CONFIG:
            size, found = _place(store, entry, target)
        else:
            _place_header(store, entry, target)
            size, found, expected = sizes[entry.path], header_digest(target), header
        if (size, found) != (entry.size, expected):
            raise IntegrityError(_difference(entry, expected, size, found), hint=_SENT_ANEW)


def header_digest(file: Path) -> str:
    """Return the digest of a safetensors file's first bytes: its header's length, and the header.

    It tells whether a header that is read without the rest of its file is the one that belongs to
    the file's digest.
    """
    with file.open("rb") as stream:
        head = stream.read(LENGTH_BYTES)
        # Where the length is damaged, the digest is another one, however much of it is read.
        head += stream.read(min(int.from_bytes(head, "little"), LIMITS.header_bytes))
    return digests.of_bytes(head)


def _sizes(store: Store, files: tuple[FileEntry, ...]) -> dict[str, int]:
    """Return the stored sizes in bytes of a published version's files by path."""
    held = {entry.path: store.size(entry.digest) for entry in files}
    lost = [f"{entry.path} ({entry.digest})" for entry in files if held[entry.path] is None]
    if lost:
        message = f"the store has lost {', '.join(lost)}"
        hint = "'loractl admin fsck' tells what else is lost; push the same content again"
        raise IntegrityError(message, hint=hint)
    return {path: size for path, size in held.items() if size is not None}


def _place_header(store: Store, entry: FileEntry, target: Path) -> None:
    file = store.file(entry.digest)
    if file is not None and _link(file, target):
        return
    seen, head = 0, b""
    with target.open("wb") as stream:
        for chunk in store.read(entry.digest):
            stream.write(chunk)
            seen += len(chunk)
            head += chunk[: LENGTH_BYTES - len(head)]
            wanted = LENGTH_BYTES + min(int.from_bytes(head, "little"), LIMITS.header_bytes)
            if len(head) == LENGTH_BYTES and seen >= wanted:
                break
        stream.truncate(entry.size)


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


def _difference(entry: FileEntry, expected: str, size: int, found: str) -> str:
    return (
        f"REG001 {entry.path} is corrupt in the store: declared {entry.size} bytes and "
        f"{expected}, found {size} bytes and {found}"
    )
