"""Blobs, or the parts of one, on their way: in rounds, until the registry misses none."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Generic, TypeVar

from rankloom.registry import crew

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from rankloom.errors import RegistryError
    from rankloom.registry.tally import Tally

K = TypeVar("K", int, str)


class Pieces(Generic[K]):
    """What is sent piece by piece, and how much of it has arrived.

    Args:
        sizes: bytes of each piece.
        tally: counts what arrives.
        workers: how many are on their way at once.
    """

    def __init__(self, sizes: Mapping[K, int], tally: Tally, workers: int = crew.WORKERS) -> None:
        self._sizes: Mapping[K, int] = sizes
        self._tally, self._workers = tally, workers
        self._counted: set[K] = set()  # pieces that the tally has

    def round(
        self, missing: Mapping[K, Callable[[], RegistryError | None]]
    ) -> RegistryError | None:
        """Send pieces until all are sent, or the registry must be asked again: then return why.

        Args:
            missing: of each piece how it is sent; returns why the registry must be asked, if so.
        """
        self.count(missing)
        doubts: list[RegistryError] = []

        def work(piece: K, send: Callable[[], RegistryError | None]) -> None:
            if doubts:
                return
            if doubt := send():
                doubts.append(doubt)
            else:
                self._counted.add(piece)

        crew.run([functools.partial(work, *item) for item in missing.items()], self._workers)
        return doubts[0] if doubts else None

    def count(self, missing: Collection[K]) -> None:
        """Let the tally be what the registry says has arrived."""
        here = {piece for piece in self._sizes if piece not in missing}
        change = self._nbytes(here - self._counted) - self._nbytes(self._counted - here)
        if change:
            self._tally.add(change)
        self._counted = here

    def _nbytes(self, pieces: Collection[K]) -> int:
        return sum(self._sizes.get(piece, 0) for piece in pieces)


class Rounds:
    """Counts rounds that bring what is sent no nearer to its end.

    Args:
        idle: how many may follow each other before the store is not believed any more.
    """

    def __init__(self, idle: int) -> None:
        self._most, self._idle, self._least = idle, 0, sys.maxsize

    def go_on(self, missing: int) -> bool:
        """Say whether another round makes sense, with so much missing now."""
        self._idle = 0 if missing < self._least else self._idle + 1
        self._least = min(self._least, missing)
        return self._idle <= self._most
