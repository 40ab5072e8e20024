"""A base's own values where its checkpoint has them on disk: mapped, not loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import torch

from rankloom.base.reader import read
from rankloom.change.dtypes import FLOATS
from rankloom.errors import IncompatibleError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.base.model import Base
    from rankloom.tensorfile.header import TensorEntry


class Checkpoint:
    """The folder that a model's weights came from.

    Args:
        folder: as for :func:`rankloom.base.reader.read`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = cache(_File)

    @cached_property
    def _base(self) -> Base:
        return read(self._folder)

    def original(self, name: str, values: torch.Tensor) -> Mapped:
        """Return where a tensor's values are, compared with those that it has now.

        Args:
            name: of the tensor in the model.
            values: what it holds, still the base's.

        Raises:
            IncompatibleError: the checkpoint has no such tensor, or other values.
        """
        entry = self._entry(name)
        if entry is None or entry.dtype not in FLOATS or entry.shape != tuple(values.shape):
            message = f"{self._folder} has no tensor {name} of shape {tuple(values.shape)}"
            hint = "it stores it in another form: leave more room for a copy of it"
            raise IncompatibleError(message, hint=hint)
        found = Mapped(entry, self._file(entry.path))
        if not _same_bits(found.values.to(values.device, values.dtype), values):
            message = f"BASE003 {name} in {self._folder} has other values than the model"
            raise IncompatibleError(message, hint="give the checkpoint that the model came from")
        return found

    def _entry(self, name: str) -> TensorEntry | None:
        """Find a tensor; a backbone alone lacks the prefix that it has within a model, or has it.

        Values are compared afterwards, so what is found is the tensor or refused.
        """
        tensors = self._base.tensors
        if name in tensors:
            return tensors[name]
        endings = [key for key in tensors if key.endswith(f".{name}") or name.endswith(f".{key}")]
        return tensors[endings[0]] if len(endings) == 1 else None


class _File:
    """A mapped file, and how one can tell that nobody wrote to it since."""

    def __init__(self, path: Path) -> None:
        self._path, self._state = path, _state(path)
        count = path.stat().st_size
        self.data = torch.from_file(str(path), shared=False, size=count, dtype=torch.uint8)

    def check(self) -> None:
        """Refuse to go on with values that may be others.

        Raises:
            IntegrityError: the file was written to, or replaced.
        """
        if _state(self._path) != self._state:
            message = f"{self._path} changed while a model's own values were kept there"
            raise IntegrityError(message, hint="load the model again from an unchanged checkpoint")


def _state(path: Path) -> tuple[int, int, int] | None:
    if not path.exists():
        return None
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Mapped:
    """One tensor in a mapped file; see :class:`rankloom.apply.live.originals.Original`."""

    entry: TensorEntry
    file: _File

    @property
    def values(self) -> torch.Tensor:
        """All of them, in the file's dtype; pages are read when they are used.

        Raises:
            IntegrityError: somebody else wrote to the file.
        """
        self.file.check()
        dtype = FLOATS[self.entry.dtype]
        data = self.file.data[self.entry.start : self.entry.end]
        if self.entry.start % dtype.itemsize:
            data = data.clone()
        return data.view(dtype).view(self.entry.shape)


def _same_bits(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Tell bits, as 0.0 == -0.0 and NaN is not itself."""
    return torch.equal(*(tensor.contiguous().view(-1).view(torch.uint8) for tensor in (one, two)))
