"""Files of a new checkpoint that are complete, but do not have their names yet.

Whoever writes a file stages it, and only the process that was asked for the checkpoint gives it its
name. So a file may be written twice, by a machine that was thought lost and by the one that took
over, and a straggler can change nothing any more.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from rankloom.apply.s3 import Prefix
from rankloom.apply.s3_files import S3Sink
from rankloom.apply.transfer import LocalSink
from rankloom.errors import BackendUnavailableError

if TYPE_CHECKING:
    from rankloom.apply.steps import ShardPlan
    from rankloom.apply.transfer import Sink


@dataclass(frozen=True, slots=True)
class Staged:
    """A file that is complete.

    Attributes:
        name: that it will have.
        nbytes: its size.
        token: what its output finds it by.
        digest: of its bytes, if it was asked for.
        unchanged: names of the tensors that something was added to, but that kept every bit.
        processor: what kind computed it.
    """

    name: str
    nbytes: int
    token: str
    digest: str | None
    unchanged: tuple[str, ...]
    processor: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A file that is complete and on the disk.

    Attributes:
        name: of the file.
        nbytes: its size.
        state: what tells that nobody has written to it since: a time, in S3 its ETag.
        unchanged: names of the tensors that something was added to, but that kept every bit.
        digest: of its bytes, if it was asked for.
        processor: what kind computed it.
    """

    name: str
    nbytes: int
    state: str
    unchanged: tuple[str, ...]
    digest: str | None
    processor: str

    @classmethod
    def of(cls, staged: Staged, state: str) -> Finished:
        """Return the record of a file that got its name."""
        return cls(
            staged.name, staged.nbytes, state, staged.unchanged, staged.digest, staged.processor
        )


class Stage(Protocol):
    """Where files are written; picklable, for other processes and machines."""

    @property
    def hashes(self) -> bool:
        """Whether the digest of each file is wanted."""

    @property
    def in_order(self) -> bool:
        """Whether a file has to be written from its beginning to its end, by one worker."""

    def create(self, plan: ShardPlan) -> Sink:
        """Return a new file, of the size that the plan says, under a name that nobody else has."""


@dataclass(frozen=True, slots=True)
class FolderStage:
    """A folder that every process and machine that works for the output sees."""

    folder: str
    hashes: bool
    in_order: bool = False

    def create(self, plan: ShardPlan) -> LocalSink:
        """See :class:`Stage`.

        Raises:
            BackendUnavailableError: this machine does not see the folder.
        """
        folder = Path(self.folder)
        if not folder.is_dir():
            message = f"{socket.gethostname()} does not see {folder}"
            hint = "write to a file system that all machines share, or to s3://"
            raise BackendUnavailableError(message, hint=hint)
        return LocalSink(folder / f"{plan.name}.{uuid4().hex}", plan.nbytes)


@dataclass(frozen=True, slots=True)
class S3Stage:
    """A folder in a bucket; each process finds its credentials where it runs."""

    url: str
    hashes: bool

    @property
    def in_order(self) -> bool:
        """See :class:`Stage`; what was uploaded is not read again to hash it."""
        return self.hashes

    def create(self, plan: ShardPlan) -> S3Sink:
        """See :class:`Stage`."""
        return S3Sink(Prefix(self.url), plan.name, plan.nbytes, hashes=self.hashes)
