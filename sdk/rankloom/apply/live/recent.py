"""Things that were used lately, within a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something that takes memory."""

    @property
    def nbytes(self) -> int:
        """Bytes."""


T = TypeVar("T", bound=Sized)


class RecentlyUsed(Generic[T]):
    """A mapping that forgets what was not used for the longest time.

    Args:
        nbytes: how much its values may take together; a larger one is not kept at all.
    """

    def __init__(self, nbytes: int) -> None:
        self.limit, self.nbytes = nbytes, 0
        self._held: OrderedDict[str, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: str) -> T | None:
        """Return a value and count it as used; ``None``: it is not here."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: str, value: T) -> None:
        """Keep a value, and forget others until all fit."""
        self.drop(key)
        if value.nbytes > self.limit:
            return
        while self.nbytes + value.nbytes > self.limit:
            self.drop(next(iter(self._held)))
        self._held[key] = value
        self.nbytes += value.nbytes

    def drop(self, key: str) -> None:
        """Forget a value if it is here."""
        if (value := self._held.pop(key, None)) is not None:
            self.nbytes -= value.nbytes
