"""What was scored so far, on disk: a killed run goes on where it was.

The first line says what is being tuned, each line after it is one score, written through to the
disk before the next trial begins. A run with the same journal takes the scores that are there and
asks for none of them again.
"""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias

from rankloom.errors import ConflictError, IntegrityError
from rankloom.files import sync
from rankloom.tune.trial import read_score

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rankloom.tune.trial import Kind, Score

Split: TypeAlias = Literal["dev", "held_out"]
Key: TypeAlias = tuple[Split, "Kind", tuple[float, ...]]


class Journal:
    """Scores by what was scored.

    Args:
        stream: where new ones are appended; ``None``: they are kept in memory only.
        known: those that are there already.

    Attributes:
        resumed: whether there were any.
    """

    def __init__(
        self,
        stream: IO[bytes] | None = None,
        known: Mapping[Key, tuple[Score, float]] | None = None,
    ) -> None:
        self._stream = stream
        self._known = dict(known or {})
        self.resumed = bool(known)

    def find(self, key: Key) -> tuple[Score, float] | None:
        """Return a score and the seconds that it took, if it is there."""
        return self._known.get(key)

    def add(self, key: Key, score: Score, seconds: float) -> None:
        """Keep a score; one that is there already stays as it is."""
        if key in self._known:
            return
        self._known[key] = score, seconds
        if self._stream is None:
            return
        split, kind, weights = key
        value = {
            "split": split,
            "kind": kind,
            "weights": weights,
            "score": list(score.examples) or score.value,
            "seconds": round(seconds, 3),
        }
        self._stream.write(_line(value))
        sync(self._stream)


@contextmanager
def open_journal(path: Path | None, what: Mapping[str, Any]) -> Iterator[Journal]:
    """Open a journal, or begin one.

    Args:
        path: the file; ``None``: nothing is kept.
        what: the lock and everything else that decides what a score belongs to. How weights are
            searched is not in it: a score is one of its weights, whoever asked for them.

    Raises:
        ConflictError: it is of something else, or another run is writing to it.
        IntegrityError: a line in it cannot be read.
    """
    if path is None:
        yield Journal()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another run is writing to {path}"
            raise ConflictError(message, hint="wait for it, or name another journal") from error
        yield Journal(stream, _read(stream, path, what))


def _read(stream: IO[bytes], path: Path, what: Mapping[str, Any]) -> dict[Key, tuple[Score, float]]:
    stream.seek(0)
    data = stream.read()
    whole = data[: data.rfind(b"\n") + 1]
    # A line without its end was being written when the run was killed.
    stream.truncate(len(whole))
    head, *rest = whole.splitlines() or [b""]
    if not head:
        stream.write(_line({"schema": 1, "tune": what}))
        sync(stream)
        return {}
    try:
        found = json.loads(head)["tune"]
        known = dict(_entry(json.loads(line)) for line in rest)
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path} is no journal of a search for weights, or was damaged: {error!r:.80}"
        raise IntegrityError(message, hint="name another journal, or remove it") from error
    _check(found, json.loads(_line(what)), path)
    return known


def _check(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            message = f"{path} is of something else: {name} is {found.get(name)!r:.80} there,"
            message += f" {wanted.get(name)!r:.80} here"
            raise ConflictError(message, hint="name another journal, or remove it")


def _entry(value: dict[str, Any]) -> tuple[Key, tuple[Score, float]]:
    key = value["split"], value["kind"], tuple(value["weights"])
    return key, (read_score(value["score"], "a trial in the journal"), value["seconds"])


def _line(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False).encode() + b"\n"
