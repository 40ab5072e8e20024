"""What of a parameter this process holds, where the parameter is sharded over several.

A change of factors is cut down to the rows of B and the columns of A that concern the shard, so no
process needs to hear of another.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch

from rankloom.apply.narrow import box_of_rows, cut
from rankloom.base.model import Piece
from rankloom.errors import IncompatibleError
from rankloom.tensorfile.index import index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from torch.distributed.tensor import DTensor

    from rankloom.apply.placed import Contribution


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this process holds of a tensor, in the same memory; all of a plain one."""
    if not is_sharded(tensor):
        return tensor
    with torch.no_grad():
        return cast("DTensor", tensor).to_local()


def is_sharded(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is spread over processes."""
    if type(tensor) is torch.Tensor or not torch.distributed.is_available():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def cut_to_shard(
    name: str, tensor: torch.Tensor, contributions: Sequence[Contribution]
) -> tuple[Contribution, ...]:
    """Return what is added to the part of a tensor that this process holds.

    Args:
        name: of the tensor.
        tensor: all of it, as a DTensor.
        contributions: what is added to all of it.

    Raises:
        IncompatibleError: that cannot be told without hearing of other processes.
    """
    if any(one.formula.needs_base or one.formula.reads for one in contributions):
        message = f"{name} is sharded, and what is added depends on values of other shards"
        hint = "apply to the checkpoint, then load and shard that"
        raise IncompatibleError(message, hint=hint)
    box = _box(name, cast("DTensor", tensor))
    shape = tuple(len(span) for span in box)
    found = []
    for one in contributions:
        slab = cut(one, box)
        if slab is not None:
            entry = replace(one.piece.entry, shape=shape)
            piece = Piece(entry, slab.transposed, index(slab.region), index(slab.part))
            found.append(replace(one, piece=piece))
    return tuple(found)


def _box(name: str, tensor: DTensor) -> tuple[range, ...]:
    """Return which range of each axis this process holds.

    Raises:
        IncompatibleError: it holds no box, or only a summand of the values.
    """
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    held = tuple(local(tensor).shape)
    if all(isinstance(placement, Replicate) for placement in tensor.placements):
        return box_of_rows(held, 0, held[0] if held else 1)
    if all(isinstance(placement, Replicate | Shard) for placement in tensor.placements):
        shape, offset = compute_local_shape_and_global_offset(
            tensor.shape, tensor.device_mesh, tensor.placements
        )
        if tuple(shape) == held and len(offset) == len(held):
            pairs = zip(offset, held, strict=True)
            return tuple(range(start, start + size) for start, size in pairs)
    message = f"{name} is placed as {tensor.placements}: which values are here cannot be told"
    raise IncompatibleError(message, hint="use Shard and Replicate, or apply before sharding")


def reshard(model: nn.Module) -> None:
    """Let a model that is sharded by ``fully_shard`` forget parameters that it has gathered.

    It would compute with those again, and they would be the old ones.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
