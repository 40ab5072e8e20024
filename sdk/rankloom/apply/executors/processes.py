"""Tasks in other processes of this machine: one that is killed takes nothing with it but its file.

A process is a plain ``python -m``, not one of ``multiprocessing``: it does not import the caller's
script again, and needs no guard there. It gets tasks and gives results as pickles through pipes.
"""

from __future__ import annotations

import pickle
import selectors
import signal
import subprocess
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.apply.executors import attempt
from rankloom.apply.workers import usual_workers
from rankloom.errors import WorkerLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankloom.apply.staged import Staged
    from rankloom.apply.tasks import ShardTask

TRIES = 3
"""How often a task is begun whose process dies: a file that kills a third one kills all."""


class Processes:
    """See :class:`rankloom.apply.tasks.Executor`.

    Args:
        workers: how many processes; ``None``: as many as torch uses threads, up to four.
    """

    def __init__(self, workers: int | None) -> None:
        self._workers = workers or usual_workers()

    def run(
        self,
        tasks: list[ShardTask],
        done: Callable[[Staged], None],
        progress: Callable[[int], None],
    ) -> None:
        """See :class:`rankloom.apply.tasks.Executor`.

        Raises:
            WorkerLostError: the same file's process died :data:`TRIES` times.
        """
        waiting = deque(_Try(task) for task in tasks)
        hands: list[_Hand] = []
        with selectors.DefaultSelector() as selector:
            try:
                while waiting and len(hands) < self._workers:
                    hands.append(_Hand(selector))
                    hands[-1].take(waiting.popleft())
                while any(hand.holds for hand in hands):
                    for key, _ in selector.select():
                        hand: _Hand = key.data
                        if (staged := hand.result()) is not None:
                            done(staged)
                            progress(staged.nbytes)
                        else:
                            hand.replace(waiting)
                        hand.take(waiting.popleft() if waiting else None)
            finally:
                for hand in hands:
                    hand.ended()


@dataclass(frozen=True, slots=True)
class _Try:
    task: ShardTask
    number: int = 1

    def again(self, code: int) -> _Try:
        """Return the next try.

        Raises:
            WorkerLostError: there were enough.
        """
        if self.number < TRIES:
            return _Try(self.task, self.number + 1)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        message = f"the process that wrote {self.task.plan.name} died {TRIES} times, at last by"
        message += f" {how}"
        hint = "memory may be short: give fewer workers, or a smaller shard size"
        raise WorkerLostError(message, hint=hint)


class _Hand:
    """One process and what it holds.

    Args:
        selector: that says when it has a result, or died.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self.holds: _Try | None = None
        self.start()

    def start(self) -> None:
        """Start a process in the place of one that ended."""
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-P", "-m", attempt.__name__],  # -P: nothing of the current folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the caller's; it ends us
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018
        self._to, self._from = self._process.stdin, self._process.stdout
        self._selector.register(self._from, selectors.EVENT_READ, self)

    def take(self, one: _Try | None) -> None:
        """Give it a task, or nothing more to do."""
        self.holds = one
        if one is not None:
            with suppress(BrokenPipeError):  # it died, and its result says so
                pickle.dump(one.task, self._to)
                self._to.flush()

    def result(self) -> Staged | None:
        """Return what it made of its task; ``None``: it died.

        Raises:
            Exception: the task's own.
        """
        try:
            found: Staged | Exception = pickle.load(self._from)  # noqa: S301 - ours wrote it
        except (EOFError, pickle.UnpicklingError):
            return None
        if isinstance(found, Exception):
            raise found
        return found

    def replace(self, waiting: deque[_Try]) -> None:
        """Start another process for one that died, if there is something to do for it.

        Args:
            waiting: where what it held goes back to.

        Raises:
            WorkerLostError: that was tried often enough.
        """
        code = self.ended()
        if self.holds is not None:
            waiting.appendleft(self.holds.again(code))
        if waiting:
            self.start()

    def ended(self) -> int:
        """End the process if it lives; return how it ended."""
        if not self._from.closed:
            self._selector.unregister(self._from)
            self._process.kill()
            self._process.wait()
            self._from.close()
            with suppress(BrokenPipeError):  # bytes that it did not read any more
                self._to.close()
        return self._process.wait()
