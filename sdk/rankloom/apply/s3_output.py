"""A new checkpoint in S3, and what a run that was killed left of it."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from rankloom.apply.s3 import Prefix
from rankloom.apply.s3_files import S3Source
from rankloom.apply.staged import Finished, S3Stage
from rankloom.apply.stores import Sources
from rankloom.apply.undoing import noted_on
from rankloom.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from rankloom.apply.s3 import Listed
    from rankloom.apply.staged import Staged

_JOURNAL = ".rankloom-partial.json"
"""What is finished; while it is there, the folder is no checkpoint."""
_LONGEST = 1 << 30
"""Bytes of a journal; not as many as were listed: whoever still writes it may have added some."""


class S3Output:
    """A new checkpoint in S3; the small files come last, so that it is none before.

    S3 knows no lock. Of two processes that write to one folder, the later one takes over: it writes
    a journal of its own, takes back what the other has uploaded, and may keep what that finished.
    The other one fails when it next looks at the journal, and touches nothing any more.

    Args:
        prefix: where it goes.
        content: a folder here for the small files.
        identity: of all that decides the bytes; another one has nothing to go on with.
        names: of the files that will be uploaded in parts.
        hashes: whether the digest of each file is wanted.

    Raises:
        ConflictError: there is something that no killed run has left.
    """

    def __init__(
        self,
        prefix: Prefix,
        content: Path,
        identity: str,
        names: Collection[str],
        *,
        hashes: bool,
    ) -> None:
        self._prefix, self.content = prefix, content
        self.stage = S3Stage(prefix.url, hashes)
        # The run's id lets no two journals have the same ETag.
        self._about = {"identity": identity, "run": uuid4().hex, "uploads": sorted(names)}
        there = prefix.files()
        journal = self._left(there)
        is_same = journal.get("identity") == identity
        lines = journal.get("finished", []) if is_same else []
        self._finished = {line["name"]: _finished(line) for line in lines}
        self._write(there.keys() - {_JOURNAL})
        self._small: dict[str, str] = {}
        self._others: set[tuple[str, str]] = set()
        self._others = self._take_back(journal.get("uploads", ()))
        self._clear()

    def _left(self, there: Mapping[str, Listed]) -> dict[str, Any]:
        """Return the journal of the run before, empty if there is none."""
        journal: dict[str, Any] = {}
        if _JOURNAL in there:
            journal = json.loads(self._prefix.get(_JOURNAL, 0, _LONGEST))
        noted = {line["name"] for line in journal.get("finished", [])}
        if there.keys() - {_JOURNAL, *journal.get("names", ()), *noted}:
            message = f"REG006 {self._prefix.url} exists already and is not empty"
            raise ConflictError(message, hint="name another output, or remove it first")
        return journal

    def _clear(self) -> None:
        """Remove all but finished files; what is not there, or another file, is not finished."""
        there = self._ours()
        self._finished = {
            name: one
            for name, one in self._finished.items()
            if name in there and there[name].etag == one.state
        }
        for name in there.keys() - self._finished.keys() - {_JOURNAL}:
            self._prefix.delete(name)

    def _ours(self) -> dict[str, Listed]:
        """Return the files that are there.

        Raises:
            ConflictError: another apply has taken over.
        """
        there = self._prefix.files()
        if _JOURNAL not in there or there[_JOURNAL].etag != self._state:
            message = f"another apply that began later writes {self._prefix.url} now"
            raise ConflictError(message, hint="wait for it, or name another output")
        return there

    def _take_back(self, names: Collection[str]) -> set[tuple[str, str]]:
        """Take back the parts of these files; return the uploads that are somebody else's."""
        found = self._prefix.uploads()
        self._ours()  # what was found is no later apply's: that would have said so before
        mine = {one for one in found - self._others if one[0] in names}
        for name, upload in sorted(mine):
            self._prefix.abort(name, upload)
        return found - mine

    def finished(self) -> dict[str, Finished]:
        """Return by name the files that are complete, by this run or an earlier one."""
        return dict(self._finished)

    def add(self, staged: Staged) -> None:
        """Let a complete file appear, and remember it."""
        try:
            self._note(staged.name)
            etag = self._prefix.complete(staged.name, staged.token)
        except BaseException as error:
            with noted_on(error):
                self._prefix.drop(staged.name, staged.token)
            raise
        self._finished[staged.name] = Finished.of(staged, etag)
        self._note()

    def open(self) -> Sources:
        """Return the complete files, to read them again."""
        states = {one.name: one.state for one in self._finished.values()}
        return Sources(lambda path: S3Source(self._prefix, path.name, states[path.name]))

    def _note(self, *names: str) -> None:
        """Write the journal, if it is ours still.

        Args:
            names: of files that will appear, and are ours whether or not we live to say it.
        """
        self._ours()  # for servers that know no conditions
        self._write(names, self._state)

    def _write(self, names: Collection[str], replaced: str | None = None) -> None:
        lines = [asdict(one) for one in self._finished.values()]
        journal = {**self._about, "finished": lines, "names": sorted(names)}
        self._state = self._prefix.put(_JOURNAL, json.dumps(journal).encode(), replaced)

    def publish(self) -> None:
        """Upload the small files.

        Raises:
            ConflictError: somebody else has written there meanwhile.
        """
        paths = sorted(self.content.iterdir())
        self._note(*(path.name for path in paths))
        for path in paths:
            with path.open("rb") as stream:
                self._small[path.name] = self._prefix.put(path.name, stream)
        there = {name: listed.etag for name, listed in self._ours().items()}
        if there != {**self._states(), _JOURNAL: self._state}:
            message = f"somebody else has written to {self._prefix.url} meanwhile"
            raise ConflictError(message, hint="apply again when nothing else writes there")
        self._prefix.delete(_JOURNAL)

    def _states(self) -> dict[str, str]:
        """Return the ETags of all files that this run has let appear or found finished."""
        return {name: one.state for name, one in self._finished.items()} | self._small

    def give_up(self, *, keep: bool) -> None:
        """Take back what is not finished, and what is too, unless the next run may want it.

        What another apply has taken over, or somebody else has written, stays as it is.
        """
        with suppress(ConflictError):
            self._take_back(self._about["uploads"])
            if keep and self._finished:
                return
            states, self._finished = self._states(), {}
            self._note(*states)  # from here on an apply that takes over keeps none of them
            for name, listed in self._ours().items():
                if states.get(name) == listed.etag:
                    self._prefix.delete(name)
            self._prefix.delete(_JOURNAL)


def _finished(line: dict[str, Any]) -> Finished:
    return Finished(**{**line, "unchanged": tuple(line["unchanged"])})


@contextmanager
def s3_output(
    url: str, identity: str, names: Collection[str], *, hashes: bool = False
) -> Iterator[S3Output]:
    """Give an output to fill; its small files are uploaded when the block ends well.

    If it ends with an error, nothing is kept. If the process is killed, or interrupted by its user,
    the next one with the same target and identity finds what was finished.

    Raises:
        ConflictError: there is something, or another apply takes over.
    """
    with TemporaryDirectory(prefix="rankloom-") as folder:
        output = S3Output(Prefix(url), Path(folder), identity, names, hashes=hashes)
        try:
            yield output
            output.publish()
        except BaseException as error:
            with noted_on(error):
                output.give_up(keep=not isinstance(error, Exception))
            raise
