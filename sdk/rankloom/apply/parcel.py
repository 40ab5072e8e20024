"""A task for a machine that does not see the adapters: it brings along what it reads of them."""

from __future__ import annotations

import io
import os
import pickle
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rankloom.errors import AdapterError
from rankloom.tensorfile.header import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.apply.tasks import ShardTask


@dataclass(frozen=True, slots=True)
class Parcel:
    """A task and the tensors of adapters that it reads.

    Attributes:
        task: pickled, with numbers in the place of the adapters' files.
        files: of each of those, the tensors: where one begins, and its bytes.
    """

    task: bytes
    files: tuple[tuple[tuple[int, bytes], ...], ...]


def pack(task: ShardTask) -> Parcel:
    """Return a task with what it reads of adapters, and nothing else of them.

    Raises:
        AdapterError: a file ends before its tensor does.
    """
    stream = io.BytesIO()
    packer = _Packer(stream, task)
    packer.dump(task)
    files = tuple(_cut(path, packer.tensors[path]) for path in packer.files)
    return Parcel(stream.getvalue(), files)


@contextmanager
def unpack(parcel: Parcel) -> Iterator[ShardTask]:
    """Give the task; what it reads lies in a folder of this machine as long as the block runs.

    The tensors are where they were in their files, between holes.
    """
    with TemporaryDirectory(prefix="rankloom-") as folder:
        paths = [Path(folder, f"{number}.safetensors") for number in range(len(parcel.files))]
        for path, tensors in zip(paths, parcel.files, strict=True):
            with path.open("wb") as stream:
                for start, data in tensors:
                    stream.seek(start)
                    stream.write(data)
        yield _Unpacker(io.BytesIO(parcel.task), paths).load()


class _Packer(pickle.Pickler):
    """Notes tensors of adapters as it meets them.

    Attributes:
        files: the adapters' files, in the order of their numbers.
        tensors: where the tensors of each begin and end.
    """

    def __init__(self, stream: io.BytesIO, task: ShardTask) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        here = task.plan.new.path
        self._base = {here, *(here.with_name(name) for name in task.origin.states)}
        self.files: list[Path] = []
        self.tensors: dict[Path, set[tuple[int, int]]] = {}

    def persistent_id(self, value: Any) -> int | None:  # noqa: ANN401 - of all that is pickled
        if isinstance(value, TensorEntry) and value.path not in self._base:
            self.tensors.setdefault(value.path, set()).add((value.start, value.end))
        if not isinstance(value, Path) or value in self._base:
            return None
        if value not in self.files:
            self.files.append(value)
        return self.files.index(value)


class _Unpacker(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, paths: list[Path]) -> None:
        super().__init__(stream)
        self._paths = paths

    def persistent_load(self, number: int) -> Path:
        return self._paths[number]


def _cut(path: Path, tensors: set[tuple[int, int]]) -> tuple[tuple[int, bytes], ...]:
    with path.open("rb", buffering=0) as stream:
        return tuple((start, _read(stream.fileno(), path, start, end))
                     for start, end in sorted(tensors))  # fmt: skip


def _read(descriptor: int, path: Path, start: int, end: int) -> bytes:
    data = bytearray(end - start)
    view = memoryview(data)
    while view and (count := os.preadv(descriptor, [view], end - len(view))):
        view = view[count:]
    if view:
        message = f"FMT008 {path} ends at byte {end - len(view)}: it changed meanwhile"
        raise AdapterError(message, hint="pull or copy the adapter again")
    return bytes(data)
