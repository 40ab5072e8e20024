"""A new checkpoint in S3, and what a run that was killed left of it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rankloom.apply.s3 import Prefix
from rankloom.apply.s3_files import S3Source
from rankloom.apply.staged import Finished, S3Stage
from rankloom.apply.stores import Sources
from rankloom.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.apply.staged import Staged

_JOURNAL = ".rankloom-partial.json"
"""What is finished; while it is there, the folder is no checkpoint."""


class S3Output:
    """A new checkpoint in S3; the small files come last, so that it is none before.

    S3 knows no lock. Of two processes that write to one folder, the later one takes back the parts
    that the other has uploaded, whose next file then fails.

    Args:
        prefix: where it goes.
        content: a folder here for the small files.
        identity: of all that decides the bytes; another one has nothing to go on with.
        hashes: whether the digest of each file is wanted.

    Raises:
        ConflictError: there is something that no killed run has left.
    """

    def __init__(self, prefix: Prefix, content: Path, identity: str, *, hashes: bool) -> None:
        self._prefix, self.content, self._identity = prefix, content, identity
        self.stage = S3Stage(prefix.url, hashes)
        self._finished = self._read()
        prefix.abort_uploads()

    def _read(self) -> dict[str, Finished]:
        there = self._prefix.files()
        size = there[_JOURNAL].nbytes if _JOURNAL in there else 0
        journal = json.loads(self._prefix.get(_JOURNAL, 0, size) or "{}")
        noted = {line["name"]: line for line in journal.get("finished", [])}
        if there.keys() - {_JOURNAL, *journal.get("names", ()), *noted}:
            message = f"REG006 {self._prefix.url} exists already and is not empty"
            raise ConflictError(message, hint="name another output, or remove it first")
        kept: dict[str, Finished] = {}
        if journal.get("identity") == self._identity:
            kept = {
                name: Finished(**{**line, "unchanged": tuple(line["unchanged"])})
                for name, line in noted.items()
                if name in there and there[name].etag == line["state"]
            }
        for name in there.keys() - kept.keys() - {_JOURNAL}:
            self._prefix.delete(name)
        return kept

    def finished(self) -> dict[str, Finished]:
        """Return by name the files that are complete, by this run or an earlier one."""
        return dict(self._finished)

    def add(self, staged: Staged) -> None:
        """Let a complete file appear, and remember it."""
        self._note(staged.name)
        etag = self._prefix.complete(staged.name, staged.token)
        self._finished[staged.name] = Finished.of(staged, etag)
        self._note()

    def open(self) -> Sources:
        """Return the complete files, to read them again."""
        states = {one.name: one.state for one in self._finished.values()}
        return Sources(lambda path: S3Source(self._prefix, path.name, states[path.name]))

    def _note(self, *names: str) -> None:
        """Write the journal.

        Args:
            names: of files that will appear, and are ours whether or not we live to say it.
        """
        lines = [asdict(one) for one in self._finished.values()]
        journal = {"identity": self._identity, "finished": lines, "names": names}
        self._prefix.put(_JOURNAL, json.dumps(journal).encode())

    def publish(self) -> None:
        """Upload the small files."""
        paths = sorted(self.content.iterdir())
        self._note(*(path.name for path in paths))
        for path in paths:
            self._prefix.put(path.name, path.read_bytes())
        self._prefix.delete(_JOURNAL)

    def give_up(self, *, keep: bool) -> None:
        """Take back what is not finished, and what is too, unless the next run may want it."""
        self._prefix.abort_uploads()
        if keep and self._finished:
            return
        for name in [*self._finished, *(path.name for path in self.content.iterdir()), _JOURNAL]:
            self._prefix.delete(name)


@contextmanager
def s3_output(url: str, identity: str, *, hashes: bool = False) -> Iterator[S3Output]:
    """Give an output to fill; its small files are uploaded when the block ends well.

    If it ends with an error, nothing is kept. If the process is killed, or interrupted by its user,
    the next one with the same target and identity finds what was finished.

    Raises:
        ConflictError: there is something.
    """
    with TemporaryDirectory(prefix="rankloom-") as folder:
        output = S3Output(Prefix(url), Path(folder), identity, hashes=hashes)
        try:
            yield output
            output.publish()
        except BaseException as error:
            output.give_up(keep=not isinstance(error, Exception))
            raise
