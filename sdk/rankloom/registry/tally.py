"""Counting bytes for those who wait: one count, whoever moves the bytes."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = Callable[[int, int], None]


class Tally:
    """How many of ``total`` bytes have arrived; may be shared by threads.

    Args:
        total: bytes in all.
        report: called with (bytes arrived, bytes in all), by one thread at a time.
    """

    def __init__(self, total: int, report: Report | None) -> None:
        self._total, self._report = total, report
        self._arrived = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count bytes that arrived (negative: that were lost again)."""
        with self._lock:
            self._arrived += count
            if self._report:
                self._report(self._arrived, self._total)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[Callable[[int], None]]:
        """Give a counter for an attempt; if it fails, its bytes did not arrive."""
        counted = 0

        def count(size: int) -> None:
            nonlocal counted
            counted += size
            self.add(size)

        try:
            yield count
        except BaseException:
            self.add(-counted)
            raise
