"""Writes files with a few workers, each with buffers of its own."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING

import torch

from rankloom.apply.compute import carry_out
from rankloom.apply.lanes import Tiles
from rankloom.apply.staged import Staged
from rankloom.apply.steps import Compute
from rankloom.apply.undoing import noted_on
from rankloom.change.threads import one_thread
from rankloom_kernels.narrow import most_products

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rankloom.apply.staged import Stage
    from rankloom.apply.steps import ShardPlan, Step
    from rankloom.apply.stores import Sources
    from rankloom.apply.transfer import Sink

MOST = 4
"""Workers at most: each holds tiles of its own, and four saturate a disk."""


@dataclass(slots=True, eq=False)
class _File:
    """A file that is being written: steps that nobody took yet, and how many are not done."""

    plan: ShardPlan
    sink: Sink
    waiting: deque[Step]
    open: int
    unchanged: list[str] = field(default_factory=list)


class Job:
    """The writing of several files.

    Each worker computes on one thread, so that reading, adding and writing overlap: splitting each
    small product over all cores instead made the same work 3 to 8 times slower on a machine that
    had something else to do, since every product waits for its slowest thread.

    A worker stays with its file, since writers of one file wait for each other; when it has done
    that, it takes the next one, and at last helps where most is left, unless files have to be
    written in order.

    Args:
        plans: the files.
        sources: the files of the base.
        stage: where they go.
        done: told of each file that is complete, in any thread, one at a time.
        device: where sums are formed; ``None``: on the CPU.
    """

    def __init__(
        self,
        plans: Sequence[ShardPlan],
        sources: Sources,
        stage: Stage,
        done: Callable[[Staged], None],
        device: torch.device | None = None,
    ) -> None:
        self._plans, self._sources, self._device = deque(plans), sources, device
        self._stage, self._tell = stage, done
        self._files: list[_File] = []
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._making, self._made = 0, threading.Condition(self._lock)  # files that are being made
        # Numbers of bytes for the progress; it is told by the thread that asked for the job.
        self._news: SimpleQueue[int | None] = SimpleQueue()
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="rankloom-sync")
        self._finishing: list[Future[None]] = []
        self._kind = processor(device)

    def run(self, workers: int, progress: Callable[[int], None]) -> None:
        """Do all of it, or raise what went wrong once nobody writes any more.

        Args:
            workers: how many steps are done at once.
            progress: told of bytes that were written, in this thread.
        """
        try:
            with one_thread():
                self._write(workers, progress)
            for done in self._finishing:
                done.result()
        except BaseException as error:
            with noted_on(error):
                self._close()
            raise
        self._close()

    def _close(self) -> None:
        """Let go of every file, whatever becomes of another."""
        self._finisher.shutdown()
        with ExitStack() as closing:
            for file in self._files:
                closing.callback(file.sink.close)

    def _write(self, workers: int, progress: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(workers, thread_name_prefix="rankloom-apply") as pool:
            futures = [pool.submit(self._work) for _ in range(workers)]
            try:
                for _ in futures:
                    while (count := self._news.get()) is not None:
                        progress(count)
            finally:
                self._stopped.set()
            for future in futures:
                future.result()

    def _work(self) -> None:
        try:
            torch.set_num_threads(1)  # it counts for each thread
            tiles, mine = Tiles.through(self._device) if self._device else Tiles(), None
            with tiles.active():
                while not self._stopped.is_set() and (mine := self._next(mine)):
                    with self._lock:
                        step = mine.waiting.popleft() if mine.waiting else None
                    if step is not None:
                        self._done(mine, step, carry_out(step, self._sources, mine.sink, tiles))
        except BaseException:
            self._stopped.set()
            raise
        finally:
            self._news.put(None)

    def _next(self, mine: _File | None) -> _File | None:
        """Return the file to go on with: the same, a new one, or that with most left to do."""
        with self._lock:
            if mine and mine.waiting:
                return mine
            if not self._plans:
                return None if self._stage.in_order else self._most_left()
            plan = self._plans.popleft()
            self._making += 1
        try:
            file = _File(plan, self._stage.create(plan), deque(plan.steps), len(plan.steps) + 1)
            with self._lock:
                self._files.append(file)
        finally:
            with self._lock:
                self._making -= 1
                self._made.notify_all()
        file.sink.write_at(memoryview(plan.prefix), 0)
        self._done(file, None, changed=True)
        return file

    def _most_left(self) -> _File | None:
        """Return the file that needs help most; the last one may not be there yet."""
        self._made.wait_for(lambda: not self._making)
        file = max(self._files, key=lambda one: len(one.waiting), default=None)
        return file if file and file.waiting else None

    def _done(self, file: _File, step: Step | None, changed: bool) -> None:
        with self._lock:
            if isinstance(step, Compute) and step.placed and not changed:
                file.unchanged.append(step.new.name)
            file.open -= 1
            if not file.open:
                self._finishing.append(self._finisher.submit(self._finish, file))
        self._news.put(step.nbytes if step else len(file.plan.prefix))

    def _finish(self, file: _File) -> None:
        plan, token = file.plan, file.sink.finish()
        digest = file.sink.digest() if self._stage.hashes else None
        unchanged = tuple(sorted(file.unchanged))
        self._tell(Staged(plan.name, plan.nbytes, token, digest, unchanged, self._kind))


def processor(device: torch.device | None = None) -> str:
    """Return what kind of processor this is: its instructions decide how sums are rounded.

    Args:
        device: a CUDA device; ``None``: the CPU.
    """
    if device is not None:
        return torch.cuda.get_device_name(device)
    return f"{torch.backends.cpu.get_cpu_capability()}, {most_products()} products of bfloat16"


def usual_workers() -> int:
    """Return how many workers there are if nobody says: as many as torch would use threads."""
    return max(1, min(torch.get_num_threads(), MOST))
