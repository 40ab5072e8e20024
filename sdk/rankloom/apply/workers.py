"""Writes files with a few workers, each with buffers of its own."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING

import torch

from rankloom.apply.compute import Tiles, carry_out
from rankloom.apply.steps import Compute
from rankloom.apply.transfer import write_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rankloom.apply.steps import ShardPlan, Step

MOST = 4
"""Workers at most: each holds about 20 MiB, and four saturate a disk."""


class Workers:
    """A pool whose workers compute on one thread each, so that reading, adding and writing overlap.

    Splitting each small product over all cores instead made the same work 3 to 8 times slower on
    a machine that had something else to do: every product waits for its slowest thread.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="rankloom-apply")
        self._tiles: SimpleQueue[Tiles] = SimpleQueue()
        for _ in range(count):
            self._tiles.put(Tiles())
        self._closing: list[Future[None]] = []

    def write(
        self, plan: ShardPlan, target: Path, progress: Callable[[int], None]
    ) -> tuple[str, ...]:
        """Write one file; it is synced to the disk while the next one is written.

        Returns:
            Names of the tensors that something was added to, but that kept every bit.
        """
        source = os.open(plan.header.path, os.O_RDONLY)
        sink = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            write_at(sink, memoryview(plan.prefix), 0)
            progress(len(plan.prefix))
            futures = {self._pool.submit(self._do, step, source, sink): step for step in plan.steps}
            unchanged = self._wait(futures, progress)
        finally:
            os.close(source)
            self._closing.append(self._pool.submit(_sync_and_close, sink))
        return unchanged

    def _do(self, step: Step, source: int, sink: int) -> bool:
        tiles = self._tiles.get()
        try:
            return carry_out(step, source, sink, tiles)
        finally:
            self._tiles.put(tiles)

    def _wait(
        self, futures: dict[Future[bool], Step], progress: Callable[[int], None]
    ) -> tuple[str, ...]:
        unchanged = []
        try:
            for future in as_completed(futures):
                step = futures[future]
                if not future.result() and isinstance(step, Compute) and step.placed:
                    unchanged.append(step.new.name)
                progress(step.nbytes)
        except BaseException:
            for future in futures:
                future.cancel()
            wait(futures)  # nobody may write once the file is closed
            raise
        return tuple(sorted(unchanged))

    def finish(self) -> None:
        """Wait until every file is on the disk."""
        for future in self._closing:
            future.result()
        self._pool.shutdown()


def _sync_and_close(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def workers() -> Iterator[Workers]:
    """Give as many workers as torch would use threads, which meanwhile uses one per operation."""
    before = torch.get_num_threads()
    pool = Workers(max(1, min(before, MOST)))
    torch.set_num_threads(1)
    try:
        yield pool
    finally:
        try:
            pool.finish()
        finally:
            torch.set_num_threads(before)
