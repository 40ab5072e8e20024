"""Files that are complete or not there: written under another name, checked, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from rankloom.errors import ConflictError, DiskError, IntegrityError, UploadCorruptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PART: Final = ".part-"
"""How the name of a file that is not complete begins."""


def write_verified(
    chunks: Iterable[bytes | memoryview],
    target: Path,
    *,
    digest: str,
    size: int,
    error: type[IntegrityError] = IntegrityError,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write ``chunks`` to ``target`` if, and only if, they have the promised size and digest.

    The bytes never carry the final name before they are verified; a file that already has the
    name is left as it is (its name is its digest, so it has the same content).

    Raises:
        IntegrityError: (or ``error``) the bytes are others; nothing is left behind.
        DiskError: they cannot be written; nothing is left behind.
    """
    with _temporary(target) as (stream, temporary):
        seen, sha = 0, hashlib.sha256()
        for chunk in chunks:
            seen += len(chunk)
            if seen > size:
                break  # never store more than was promised, however much is sent
            sha.update(chunk)
            with on_disk(target):
                stream.write(chunk)
            if progress:
                progress(len(chunk))
        found = "sha256:" + sha.hexdigest()
        if seen != size or found != digest:
            length = f"more than {size}" if seen > size else str(seen)
            rule = "REG001" if issubclass(error, UploadCorruptError) else "REG002"
            message = f"{rule} bytes of {digest} are corrupt: got {length} of {size} bytes, {found}"
            raise error(message, hint="nothing was kept; repeat the transfer")
        with on_disk(target):
            sync(stream)
            temporary.chmod(0o644)  # mkstemp makes it private; an adapter in a shared cache is not
            temporary.replace(target)


@contextlib.contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Say in words what the disk refuses while ``path`` is written.

    Raises:
        DiskError: the disk is full or read-only, or the folder is not ours.
    """
    try:
        yield
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        hint = "make room or name another folder (RANKLOOM_HOME moves the cache), then try again"
        raise DiskError(message, hint=hint) from error


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[IO[bytes], Path]]:
    with on_disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Named after its target, so that whoever finds one left behind knows what it was to be.
        prefix = f"{PART}{target.name[:80]}-"
        handle, name = tempfile.mkstemp(prefix=prefix, dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream, temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(target: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a small file so that a reader sees the old content or the new, never a part.

    Raises:
        DiskError: the disk is full or read-only, or the folder is not ours.
    """
    with _temporary(target) as (stream, temporary), on_disk(target):
        stream.write(data)
        sync(stream)
        temporary.chmod(mode)
        temporary.replace(target)


def sync(stream: IO[bytes]) -> None:
    """Flush a stream and its file down to the disk."""
    stream.flush()
    os.fsync(stream.fileno())


@contextlib.contextmanager
def output_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill; it becomes ``target`` when the block ends well, else it vanishes.

    Raises:
        ConflictError: ``target`` exists and is not an empty folder.
    """
    check_output(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as name:
        filling = Path(name) / "content"
        filling.mkdir()
        yield filling
        if target.exists():
            target.rmdir()  # it was empty when we began; if it is not any more, this refuses
        filling.rename(target)


def check_output(target: Path) -> None:
    """Refuse a target that holds something already.

    Raises:
        ConflictError: ``target`` exists and is not an empty folder.
    """
    if target.is_symlink() or (target.exists() and not _is_empty_folder(target)):
        message = f"REG006 {target} exists already and is not an empty folder"
        raise ConflictError(message, hint="name another output, or remove it first")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
