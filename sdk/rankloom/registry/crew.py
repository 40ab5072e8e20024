"""A few threads that do many transfers; the first that fails stops the rest."""

from __future__ import annotations

import contextlib
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

T = TypeVar("T")

WORKERS = 4
"""Connections at a time: one stream of an object store rarely fills a line, four mostly do."""


def run(jobs: Sequence[Callable[[], object]], workers: int = WORKERS) -> None:
    """Do all jobs, ``workers`` at a time, begun in their order.

    Raises:
        BaseException: what the first job in order raised of those that failed; jobs that had not
            begun are not begun any more.
    """
    if len(jobs) <= 1 or workers <= 1:
        for job in jobs:
            job()
        return
    with ThreadPoolExecutor(min(workers, len(jobs)), thread_name_prefix="transfer") as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # also when a person interrupts
            pool.shutdown(wait=False, cancel_futures=True)
    for future in futures:
        if not future.cancelled():
            future.result()


@contextlib.contextmanager
def beside(work: Callable[[], T]) -> Iterator[Future[T]]:
    """Do ``work`` in a thread of its own while the block runs; the block's end waits for it."""
    with ThreadPoolExecutor(1, thread_name_prefix="beside") as pool:
        yield pool.submit(work)
