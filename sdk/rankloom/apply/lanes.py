"""The buffers that tiles go through: read into, changed and written from, here or on a device."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from rankloom.change.evaluate import Recent
from rankloom_kernels import Workspace
from rankloom_kernels.workspace import TILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    Fill = Callable[[torch.Tensor, torch.Tensor], None]

DEVICE_TILE_BYTES = 32 << 20
"""Of a tile that crosses to a device: so large that starting copies and kernels does not count."""

_CPU = torch.device("cpu")


class Lane:
    """Buffers of one tile, which is changed where it is.

    Args:
        nbytes: of a tile.
        pinned: memory that a device copies from and to by itself.
    """

    def __init__(self, nbytes: int = TILE_BYTES, *, pinned: bool = False) -> None:
        self.source, self.result = (Workspace(nbytes, pinned=pinned) for _ in range(2))

    def run(self, fill: Fill, result: torch.Tensor, tile: torch.Tensor) -> None:
        """Begin ``fill(result, tile)``, both being buffers of this lane."""
        fill(result, tile)

    def wait(self) -> None:
        """Return once what was begun is done."""


class Crossing(Lane):
    """Buffers of one tile, which is changed on a device while this side reads and writes others.

    Args:
        device: where.
        nbytes: of a tile.
    """

    def __init__(self, device: torch.device, nbytes: int = DEVICE_TILE_BYTES) -> None:
        super().__init__(nbytes, pinned=device.type == "cuda")
        self._device = device
        self._there, self._back = Workspace(nbytes), Workspace(nbytes)
        self._arrived: torch.Event | None = None

    def run(self, fill: Fill, result: torch.Tensor, tile: torch.Tensor) -> None:
        """See :meth:`Lane.run`."""
        (rows, width), device = tile.shape, self._device
        there = self._there.tile(rows, width, tile.dtype, device)
        back = self._back.tile(rows, width, result.dtype, device)
        there.copy_(tile, non_blocking=True)
        fill(back, there)
        result.copy_(back, non_blocking=True)
        if device.type == "cuda":
            self._arrived = torch.accelerator.current_stream(device).record_event()

    def wait(self) -> None:
        """See :meth:`Lane.wait`."""
        if self._arrived is not None:
            self._arrived.synchronize()


class Tiles:
    """All that one worker computes with.

    Attributes:
        lanes: a tile goes through each in turn.
        device: where sums are formed.
        sums: accumulators.
        recent: factors that the next tensor mostly needs too.

    Args:
        nbytes: of a tile.
        lanes: default: one, on this side.
        device: of the lanes.
    """

    def __init__(
        self,
        nbytes: int = TILE_BYTES,
        lanes: Sequence[Lane] | None = None,
        device: torch.device = _CPU,
    ) -> None:
        self.lanes = lanes or [Lane(nbytes)]
        self.device = device
        self.sums = Workspace(nbytes)
        self.recent = Recent()

    @classmethod
    def through(cls, device: torch.device, nbytes: int = DEVICE_TILE_BYTES) -> Tiles:
        """Return two lanes that cross to a device, so that it works while this side does too."""
        return cls(nbytes, [Crossing(device, nbytes) for _ in range(2)], device)

    def active(self) -> AbstractContextManager[object]:
        """Let this thread's work on the device be in order, and that of other threads beside it."""
        if self.device.type != "cuda":
            return nullcontext()
        return torch.cuda.stream(torch.cuda.Stream(self.device))  # type: ignore[no-untyped-call]
