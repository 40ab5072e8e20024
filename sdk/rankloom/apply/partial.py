"""Outputs that a run which was killed left behind, and that the next one goes on with."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

from rankloom.apply.staged import Finished, FolderStage
from rankloom.apply.stores import Sources
from rankloom.apply.transfer import LocalSource
from rankloom.errors import ConflictError
from rankloom.files import check_output, on_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.apply.staged import Staged

_JOURNAL = "journal.jsonl"


class Partial:
    """A folder that is being filled, beside the one that it will become.

    Args:
        folder: where everything about it lies.
        journal: what is finished, a line for each file, locked by this process.
        identity: of all that decides the bytes; another one has nothing to go on with.
        hashes: whether the digest of each file is wanted.
    """

    def __init__(self, folder: Path, journal: IO[str], identity: str, *, hashes: bool) -> None:
        self.content = folder / "content"
        for path in folder.glob("staged-*"):  # a straggler of an earlier run finds nothing there
            shutil.rmtree(path)
        staged = folder / f"staged-{uuid4().hex}"
        staged.mkdir()
        self.stage = FolderStage(str(staged.resolve()), hashes)
        self._journal = journal
        self._finished = self._read(identity)
        self.content.mkdir(exist_ok=True)
        for path in self.content.iterdir():
            if path.name not in self._finished:
                path.unlink()
        if not self._finished:
            self._journal.seek(0)
            self._journal.truncate()
            self._write({"identity": identity})

    def _read(self, identity: str) -> dict[str, Finished]:
        self._journal.seek(0)
        first, *rest = [_parse(line) for line in self._journal] or [{}]
        found = (
            [Finished(**line) for line in rest if line] if first == {"identity": identity} else []
        )
        return {one.name: one for one in found if self._is_there(one)}

    def _is_there(self, one: Finished) -> bool:
        path = self.content / one.name
        return path.is_file() and (path.stat().st_size, _time(path)) == (one.nbytes, one.state)

    def finished(self) -> dict[str, Finished]:
        """Return by name the files that are complete, by this run or an earlier one."""
        return dict(self._finished)

    def add(self, staged: Staged) -> None:
        """Give a complete file its name, and remember it."""
        path = self.content / staged.name
        with on_disk(path):
            Path(staged.token).rename(path)
            one = Finished.of(staged, _time(path))
            self._write(asdict(one))
        self._finished[one.name] = one

    def open(self) -> Sources:
        """Return the complete files, to read them again."""
        return Sources(lambda path: LocalSource(self.content / path.name))

    def _write(self, line: dict[str, Any]) -> None:
        self._journal.write(json.dumps(line) + "\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())


def _time(path: Path) -> str:
    return str(path.stat().st_mtime_ns)


def _parse(line: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(line)
    except ValueError:  # the process ended within this line
        return {}
    if "unchanged" in values:
        values["unchanged"] = tuple(values["unchanged"])
    return values


@contextmanager
def partial_output(target: Path, identity: str, *, hashes: bool = False) -> Iterator[Partial]:
    """Give a folder to fill, which becomes ``target`` when the block ends well.

    If it ends with an error, nothing is kept. If the process is killed, or interrupted by its user,
    the next one with the same target and identity finds what was finished.

    Raises:
        ConflictError: ``target`` exists and is not an empty folder, or another process writes it.
        DiskError: the disk is full or read-only, or the folder is not ours.
    """
    check_output(target)
    folder = target.parent / f".{target.name}.partial"
    with on_disk(target):
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / _JOURNAL).open("a+")
    with opened as journal:
        with on_disk(target):
            _lock(journal, target)
        partial: Partial | None = None
        try:
            with on_disk(target):
                partial = Partial(folder, journal, identity, hashes=hashes)
            yield partial
            check_output(target)
            with on_disk(target):
                _publish(partial.content, target)
        except BaseException as error:
            if isinstance(error, Exception) or (partial and not partial.finished()):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        with on_disk(folder):
            shutil.rmtree(folder)


def _publish(content: Path, target: Path) -> None:
    if target.exists():
        target.rmdir()  # it is empty
    _sync_folder(content)
    content.rename(target)
    _sync_folder(target.parent)


def _lock(journal: IO[str], target: Path) -> None:
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_there = os.path.sameopenfile(journal.fileno(), (opened := _open(journal.name)))
        os.close(opened)
    except (BlockingIOError, FileNotFoundError):
        is_there = False  # the other one has just ended, and removed what we opened
    if not is_there:
        message = f"another process is writing {target}"
        raise ConflictError(message, hint="wait for it, or name another output")


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
