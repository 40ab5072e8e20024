"""Deltas of one target, computed from factors some rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from rankloom.compose.factors.value import Factors, check
from rankloom.errors import AdapterError
from rankloom_kernels.grid import on_grid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BLOCK = 1 << 17
"""Elements at a time: some 32 rows of 4096. Half as many and twice as many take as long."""

ROUNDING: Final = "exact-product-of-gridded-factors"
"""How an element comes from factors, for locks: see :mod:`rankloom_kernels.grid`."""


@dataclass(frozen=True, slots=True, eq=False)
class Deltas:
    """N deltas of one shape, each element the same bits wherever and with whatever it is computed.

    Attributes:
        parts: factors whose products float64 computes without rounding.
    """

    parts: tuple[Factors, ...]

    @classmethod
    def of(cls, parts: Sequence[Factors]) -> Deltas:
        """Take factors in, scale folded in.

        Raises:
            IncompatibleError: there are no parts, or their shapes differ.
            AdapterError: a factor holds NaN or infinity, or elements may overflow float32.
        """
        check(parts)
        for part in parts:
            _check_range(part)
        return cls(tuple(Factors(*on_grid(part.b, part.a)) for part in parts))

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.parts[0].shape

    @property
    def device(self) -> torch.device:
        """Where the factors are."""
        return self.parts[0].b.device

    @property
    def height(self) -> int:
        """Rows of a block."""
        return max(1, BLOCK // max(1, self.shape[1]))

    def __len__(self) -> int:
        return len(self.parts)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield (first row, last row + 1) of blocks that make up the rows ``start`` to ``stop``."""
        stop = self.shape[0] if stop is None else stop
        for first in range(start, stop, self.height):
            yield first, min(first + self.height, stop)

    def buffer(self, count: int) -> torch.Tensor:
        """Return room for ``count`` blocks, (count, height, in) float32, not initialised."""
        size = (count, min(self.height, self.shape[0]), self.shape[1])
        return torch.empty(size, dtype=torch.float32, device=self.device)

    def block_(self, number: int, block: tuple[int, int], room: torch.Tensor) -> torch.Tensor:
        """Write one block of delta ``number`` into (height, in) and return its part of that."""
        first, last = block
        part = self.parts[number]
        return room[: last - first].copy_(part.b[first:last] @ part.a)

    def stack_(self, block: tuple[int, int], room: torch.Tensor) -> torch.Tensor:
        """Write one block of every delta into (N, height, in) and return its part of that."""
        for number in range(len(self)):
            self.block_(number, block, room[number])
        return room[:, : block[1] - block[0]]


def _check_range(part: Factors) -> None:
    """Refuse what could overflow: no element is larger than ‖bᵢ‖·‖aⱼ‖, and methods square them."""
    b = torch.linalg.vector_norm(part.b.double(), dim=1).amax()
    a = torch.linalg.vector_norm(part.a.double(), dim=0).amax()
    largest = float(b * a)
    if not largest < 2.0**60:
        message = f"NUM004 elements of a delta {part.shape} reach {largest:.1e}"
        raise AdapterError(message, hint="the training run diverged; use an earlier checkpoint")
