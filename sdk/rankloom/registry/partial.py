"""A large blob while it arrives: its bytes, and a note of which are there, in two files.

Whatever kills the process, the next one finds both and fetches the rest. The note may be wrong (a
machine that lost power, a disk that lies), which is why the whole file is hashed at its end.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import threading
from typing import IO, TYPE_CHECKING, Final, Self

from rankloom.errors import DiskError, IntegrityError
from rankloom.files import PART, on_disk, sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK: Final = 1 << 20
"""Bytes that are noted at once: what a killed process fetches again of each connection."""


class Partial:
    """The part of a blob that has arrived; several threads may write to it.

    Attributes:
        size: bytes of the whole blob.
    """

    def __init__(self, stream: IO[bytes], note: IO[bytes], target: Path, size: int) -> None:
        self.size = size
        self._stream, self._note, self._target = stream, note, target
        self._blocks = -(-size // BLOCK)
        self._have = bytearray(note.read(self._blocks).ljust(self._blocks, b"\0"))
        self._changed = threading.Condition()
        self._stopped = False

    @classmethod
    @contextlib.contextmanager
    def open(cls, target: Path, size: int) -> Iterator[Self | None]:
        """Open what has arrived of ``target``; while another process has it, wait.

        Gives ``None`` if ``target`` itself is there by then.

        Raises:
            DiskError: there is no room for the whole blob.
        """
        with on_disk(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(_locked(target))
            if target.is_file():
                _place(target).unlink(missing_ok=True)
                yield None
                return
            with on_disk(target):
                note = stack.enter_context(_open(_note_place(target)))
            partial = cls(stream, note, target, size)
            partial._reserve()
            yield partial

    def _reserve(self) -> None:
        try:
            with on_disk(self._target):
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(self._stream.fileno(), 0, self.size)
                else:  # macOS: a full disk shows when the bytes come
                    os.ftruncate(self._stream.fileno(), self.size)
        except DiskError:
            if not self.arrived:
                self.discard()
            raise

    def missing(self, span: int) -> Iterator[tuple[int, int]]:
        """Yield ranges (begin, end) in bytes of what is not there yet, each at most ``span``."""
        begin = 0
        while begin < self._blocks:
            if self._have[begin]:
                begin += 1
                continue
            end = begin + 1
            while end < self._blocks and not self._have[end] and (end - begin) * BLOCK < span:
                end += 1
            yield begin * BLOCK, min(end * BLOCK, self.size)
            begin = end

    @property
    def arrived(self) -> int:
        """Bytes that are there."""
        return self.size - sum(end - begin for begin, end in self.missing(self.size))

    def write(self, offset: int, data: memoryview) -> None:
        """Keep one block, which begins at ``offset``.

        Raises:
            DiskError: it cannot be written.
        """
        with on_disk(self._target):
            written = 0
            while written < len(data):
                written += os.pwrite(self._stream.fileno(), data[written:], offset + written)
            os.pwrite(self._note.fileno(), b"\1", offset // BLOCK)
        with self._changed:
            self._have[offset // BLOCK] = 1
            self._changed.notify()

    def stop(self) -> None:
        """Let :meth:`hash` end although blocks are missing."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _settled(self, block: int) -> bool:
        return self._stopped or bool(self._have[block])

    def hash(self) -> str:
        """Return the digest of the whole, following the blocks as they arrive."""
        sha, buffer = hashlib.sha256(), memoryview(bytearray(BLOCK))
        for block in range(self._blocks):
            with self._changed:
                self._changed.wait_for(functools.partial(self._settled, block))
                if not self._have[block]:
                    return "sha256:"
            count = os.preadv(self._stream.fileno(), [buffer], block * BLOCK)
            sha.update(buffer[:count])
        return f"sha256:{sha.hexdigest()}"

    def finish(self, digest: str, found: str) -> None:
        """Give the blob its name if ``found`` is its digest; otherwise throw everything away.

        Raises:
            IntegrityError: it is another.
        """
        if found != digest:
            self.discard()
            message = f"REG002 bytes of {digest} are corrupt: got {self.size} bytes, {found}"
            raise IntegrityError(message, hint="nothing was kept; repeat the transfer")
        with on_disk(self._target):
            sync(self._stream)
            _place(self._target).chmod(0o644)
            _place(self._target).replace(self._target)
            _note_place(self._target).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what has arrived."""
        _place(self._target).unlink(missing_ok=True)
        _note_place(self._target).unlink(missing_ok=True)


def _place(target: Path) -> Path:
    return target.with_name(PART + target.name)


def _note_place(target: Path) -> Path:
    return target.with_name(f"{PART}{target.name}.note")


def _open(path: Path) -> IO[bytes]:
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b", buffering=0)  # noqa: PTH123 - Path.open cannot create without emptying


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[IO[bytes]]:
    """Open the file of the bytes for one process alone."""
    while True:
        with on_disk(target):
            stream = _open(_place(target))
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # Whoever had it before has renamed or removed it: then this is not the file any more.
            if _is_at(stream, _place(target)):
                yield stream
                return


def _is_at(stream: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
