"""What one composition makes of one parameter, ready to be written at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from rankloom.apply.blocks import blocks
from rankloom.apply.dense import Slabs
from rankloom.apply.live.shards import cut_to_shard, is_sharded, local
from rankloom.change.evaluate import Recent, load_all
from rankloom_kernels import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rankloom.apply.blocks import Block
    from rankloom.apply.live.spots import Spot
    from rankloom.apply.placed import Contribution
    from rankloom.change.evaluate import Loaded
    from rankloom.tensorfile.header import TensorEntry

    Read = Callable[[TensorEntry], torch.Tensor]


@dataclass(frozen=True)
class Write:
    """One parameter and what is added to it.

    Attributes:
        spot: the parameter.
        contributions: what is added to as much of it as this process holds.
        loaded: the same as factors in memory; ``None``: it is computed when it is written.
        form: dtype and device that the factors were loaded for.
    """

    spot: Spot
    contributions: tuple[Contribution, ...]
    loaded: tuple[tuple[Block, Loaded], ...] | None
    form: tuple[torch.dtype, torch.device]

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the factors."""
        deltas = [loaded.delta for _, loaded in self.loaded or ()]
        tensors = [t for delta in deltas for t in (delta.a, delta.b, delta.raw_b, delta.columns)]
        tensors += [t for delta in deltas if delta.narrow for t in (delta.narrow.b, delta.narrow.a)]
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())

    @property
    def is_current(self) -> bool:
        """Whether the parameter is still where, and of the dtype that, the factors are for."""
        return self.form == _form(self.spot.weight)

    @torch.no_grad()
    def fill(self, original: torch.Tensor, read: Read, workspace: Workspace) -> None:
        """Set the parameter to W′, each element rounded once.

        Args:
            original: the base's values of it, as this process holds them; on any device.
            read: gives any tensor of the base, for what depends on all values of a parameter.
            workspace: keeps buffers from one to the next.

        Raises:
            AdapterError: a tensor of an adapter cannot be read, or holds NaN or infinity.
        """
        weight = local(self.spot.weight).detach()
        if original.device != weight.device:
            original = weight.copy_(original, non_blocking=True)
        if self.loaded is None:
            self._fill_slabs(weight, original, read)
            return
        old, new = (tensor.view(-1, tensor.shape[-1]) for tensor in (original, weight))
        done = 0
        for block, loaded in self.loaded:
            _copy(old[done : block.start], new[done : block.start])
            rows = slice(block.start, block.stop)
            loaded.merge_(old[rows], out=new[rows], workspace=workspace)
            done = block.stop
        _copy(old[done:], new[done:])

    def _fill_slabs(self, weight: torch.Tensor, original: torch.Tensor, read: Read) -> None:
        slabs = Slabs(self.contributions, read, weight.device)
        if not weight.dim():
            slabs.fill(weight, original, 0)
            return
        width = weight.numel() // max(1, weight.shape[0])
        height = Workspace().rows(width, torch.float64)
        for start in range(0, weight.shape[0], height):
            rows = slice(start, start + height)
            slabs.fill(weight[rows], original[rows], start)


@dataclass(frozen=True)
class Prepared:
    """All that one composition writes."""

    writes: tuple[Write, ...]

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all factors."""
        return sum(write.nbytes for write in self.writes)

    @property
    def is_current(self) -> bool:
        """Whether the model did not move to another dtype or device since."""
        return all(write.is_current for write in self.writes)


def prepare(spots: Sequence[Spot]) -> Prepared:
    """Read the factors of all that is a product of factors; nothing of the model changes.

    Raises:
        AdapterError: a factor cannot be read, holds NaN or infinity, or overflows with its weight.
        IncompatibleError: a parameter is sharded, and the change depends on other shards.
    """
    return Prepared(tuple(map(_write, spots)))


def _write(spot: Spot) -> Write:
    weight, contributions = spot.weight, spot.contributions
    if is_sharded(weight):
        contributions = cut_to_shard(spot.name, weight, contributions)
    held = local(weight)
    found = blocks(contributions) if held.is_contiguous() and held.dim() else None
    loaded = None if found is None else _load(found, held)
    return Write(spot, contributions, loaded, _form(weight))


def _load(found: Sequence[Block], weight: torch.Tensor) -> tuple[tuple[Block, Loaded], ...]:
    recent = Recent()
    wide = weight.dtype == torch.float64
    return tuple(
        (
            block,
            load_all(
                block.items,
                transposed=block.transposed,
                dtype=torch.float64 if wide else torch.float32,
                device=weight.device,
                recent=recent,
                for_bfloat16=weight.dtype == torch.bfloat16,
            ),
        )
        for block in found
    )


def _copy(old: torch.Tensor, new: torch.Tensor) -> None:
    if old.data_ptr() != new.data_ptr():
        new.copy_(old)


def _form(weight: torch.Tensor) -> tuple[torch.dtype, torch.device]:
    return weight.dtype, weight.device
