"""Where a base is: a folder here, or one in S3; for this process and for others."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rankloom.apply.s3 import Prefix, is_s3
from rankloom.apply.s3_files import S3Source, shadow
from rankloom.apply.stores import Sources
from rankloom.apply.transfer import LocalSource
from rankloom.base.reader import read
from rankloom.errors import BaseError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from rankloom.base.model import Base


@dataclass(frozen=True, slots=True)
class Origin:
    """The files of a base as whoever reads them has to find them; it holds no credentials.

    Attributes:
        place: the folder's absolute path, or ``s3://bucket/prefix``.
        states: what tells by name that a file is the same: its size and when it was written, or
            its ETag.
    """

    place: str
    states: Mapping[str, str]

    @classmethod
    def of(cls, base: Base) -> Origin:
        """Return where a base in a folder is."""
        return cls(str(base.path.resolve()), {path.name: _state(path) for path in base.files})

    @property
    def is_remote(self) -> bool:
        """Whether it is in S3."""
        return is_s3(self.place)

    def open(self) -> Sources:
        """Return the files, each of which is opened when something of it is read.

        Raises:
            BaseError: (when it is opened) it is not there, or not the file that was planned with.
        """
        if self.is_remote:
            prefix = Prefix(self.place)
            return Sources(lambda path: S3Source(prefix, path.name, self.states.get(path.name)))
        return Sources(partial(_open, self))


def _open(origin: Origin, path: Path) -> LocalSource:
    found = Path(origin.place, path.name)
    if not found.is_file():
        message = f"{found} is not on this machine"
        hint = "give a base that all machines see: on a shared file system, or in S3"
        raise BaseError(message, hint=hint)
    if _state(found) != origin.states.get(path.name):
        message = f"{found} has another size or time than when the work was planned"
        hint = "apply again when nothing writes to the base; copies on other machines keep times"
        raise BaseError(message, hint=hint)
    return LocalSource(found)


def _state(path: Path) -> str:
    state = path.stat()
    return f"{state.st_size} {state.st_mtime_ns}"


@contextmanager
def open_base(place: str | os.PathLike[str]) -> Iterator[tuple[Base, Origin]]:
    """Give a base, of which headers can be read as from a folder, and where its tensors are.

    Args:
        place: a folder, or ``s3://bucket/prefix``.

    Raises:
        BaseError: it holds no checkpoint.
    """
    if not is_s3(place):
        base = read(Path(place))
        yield base, Origin.of(base)
        return
    prefix = Prefix(str(place))
    with TemporaryDirectory(prefix="rankloom-") as folder:
        states = shadow(prefix, Path(folder))
        yield read(Path(folder)), Origin(prefix.url, states)
