"""Who uses what: each process says it in a file, which counts while the process lives.

Beside the file lies a lock that its process keeps; the system frees it however the process ends.
Whoever says that it uses something, and whoever removes something, holds the cache's one lock
meanwhile, so that nothing is removed between a look and a use.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
import weakref
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@contextlib.contextmanager
def guarded(cache: Path) -> Iterator[None]:
    """Be the only process that removes from the cache, or begins to use something of it."""
    _folder(cache).mkdir(parents=True, exist_ok=True)
    with FileLock(_folder(cache) / "guard.lock"):
        yield


def held(cache: Path) -> set[str]:
    """Return the digests that processes use which are alive; call it inside :func:`guarded`."""
    digests: set[str] = set()
    for path in _folder(cache).glob("*.held"):
        lock = path.with_suffix(".lock")
        try:
            with FileLock(lock, blocking=False):
                path.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        except Timeout:
            with contextlib.suppress(FileNotFoundError):  # it has just let go
                digests.update(path.read_text().split())
    return digests


class Holds:
    """What one process uses of a cache; it lets go when closed, collected or ended.

    Args:
        cache: the cache folder.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._mutex = threading.Lock()
        self._mine: set[str] = set()
        self._leave: weakref.finalize[[Path, FileLock, int], Holds] | None = None
        self._process = 0

    def add(self, digests: Iterable[str]) -> None:
        """Say that these are used, before looking whether they are there."""
        with self._mutex:
            if self._process != os.getpid():  # a fork's child holds nothing of its parent's
                self._begin()
            new = set(digests) - self._mine
            if new:
                with guarded(self._cache), self._path.open("a") as stream:
                    stream.write("\n".join([*new, ""]))
                self._mine |= new

    def _begin(self) -> None:
        self._process, self._mine = os.getpid(), set()
        self._path = _folder(self._cache) / f"{self._process}-{uuid.uuid4().hex}.held"
        with guarded(self._cache):
            lock = FileLock(self._path.with_suffix(".lock"), thread_local=False)
            lock.acquire()
            self._path.touch()
        self._leave = weakref.finalize(self, _leave, self._path, lock, self._process)

    def close(self) -> None:
        """Let go of everything."""
        with self._mutex:
            if self._leave is not None:
                self._leave()
            self._process = 0


def _leave(path: Path, lock: FileLock, process: int) -> None:
    if os.getpid() != process:  # the files are the parent's
        return
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        lock.release()
        path.with_suffix(".lock").unlink(missing_ok=True)


def _folder(cache: Path) -> Path:
    return cache / "holders"
