"""One task as another process carries it out: its error is a value that travels back."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from typing import TYPE_CHECKING

from rankloom.errors import RankloomError

if TYPE_CHECKING:
    from rankloom.apply.staged import Staged
    from rankloom.apply.tasks import ShardTask


def attempt(task: ShardTask) -> Staged | Exception:
    """Carry out a task; return the exception that it ends with."""
    try:
        return task.run()
    except Exception as error:  # noqa: BLE001 - it is raised where the user is
        return _portable(error)


def _portable(error: Exception) -> Exception:
    """Return the error, or where no other process could read it, its text."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - constructors of others want anything
        return RankloomError(f"{type(error).__name__} on {socket.gethostname()}: {error}")
    return error


def main() -> None:
    """Carry out pickled tasks from standard input until it ends."""
    results = os.fdopen(os.dup(1), "wb")  # it stays open as long as we live
    os.dup2(2, 1)  # nothing else belongs between the results, whatever language prints it
    while True:
        try:
            task: ShardTask = pickle.load(sys.stdin.buffer)  # noqa: S301 - who started us wrote it
        except EOFError:
            return
        pickle.dump(attempt(task), results)
        results.flush()


if __name__ == "__main__":
    main()
