"""Takes a tensor through float64, some rows of its first axis at a time, whatever is added."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from rankloom.apply.narrow import box_of_rows, cut
from rankloom.apply.transfer import LocalSource, view_bytes
from rankloom.base.pieces import parameter_shape
from rankloom.change.dense import Dense
from rankloom.change.dtypes import FLOATS
from rankloom.tensorfile.index import index

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rankloom.apply.narrow import Slab
    from rankloom.apply.placed import Contribution
    from rankloom.apply.transfer import Source
    from rankloom.base.model import Piece
    from rankloom.tensorfile.header import TensorEntry

    Read = Callable[[TensorEntry], torch.Tensor]


def read_stored(entry: TensorEntry, source: Source | None = None) -> torch.Tensor:
    """Return a tensor of the base in its own dtype.

    Args:
        entry: the tensor.
        source: its file, if that is open.

    Raises:
        BaseError: the file ends before the tensor does.
    """
    tensor = torch.empty(entry.shape, dtype=FLOATS[entry.dtype])
    opened = source or LocalSource(entry.path)
    try:
        opened.read_into(view_bytes(tensor), entry.start)
    finally:
        if source is None:
            opened.close()
    return tensor


class Slabs:
    """What is added to one stored tensor, evaluated in float64 and rounded once.

    Args:
        contributions: what is added; where one puts values in the place of others, nothing else
            but what is added to the same parameter concerns the same elements.
        read: gives a stored tensor of the base, for what depends on all values of a parameter.
        device: where the tensor is.
        once: as for :class:`rankloom.change.dense.Dense`.
    """

    def __init__(
        self,
        contributions: Sequence[Contribution],
        read: Read = read_stored,
        device: torch.device | str = "cpu",
        *,
        once: bool = False,
    ) -> None:
        # What replaces values comes first, so that it finds W as it was.
        ordered = sorted(contributions, key=lambda one: not one.formula.replaces)
        self._items = [(one, _dense(one, read, device, once=once)) for one in ordered]

    def fill(self, result: torch.Tensor, weight: torch.Tensor, start: int) -> None:
        """Set ``result`` to rows of W′.

        Args:
            result: rows ``start``, ``start + 1``, … of the new tensor, of any dtype.
            weight: the same rows of W, of any dtype.
            start: number of the first row.
        """
        before = weight.double()
        total = before.clone()
        stop = start + (weight.shape[0] if weight.dim() else 1)
        self.add_(total, before, box_of_rows(weight.shape, start, stop))
        result.copy_(total)

    def add_(
        self,
        total: torch.Tensor,
        before: torch.Tensor,
        box: Sequence[range],
        magnitude: torch.Tensor | None = None,
    ) -> None:
        """Turn W into W′ on a box of the stored tensor.

        Args:
            total: the box, float64; holds W.
            before: the same values, float64.
            box: where it is, a range on each axis.
            magnitude: what the sizes of all summands are added to.
        """
        for one, dense in self._items:
            slab = cut(one, box)
            if slab is None:
                continue
            tensors = (total, before) if magnitude is None else (total, before, magnitude)
            new, old, *sizes = (_oriented(tensor, slab) for tensor in tensors)
            dense.add_(new, old, slab.part)
            for size in sizes:
                dense.add_magnitude_(size, slab.part)


def _oriented(tensor: torch.Tensor, slab: Slab) -> torch.Tensor:
    values = tensor[index(slab.region)]
    return values.mT if slab.transposed else values


def _dense(one: Contribution, read: Read, device: torch.device | str, *, once: bool) -> Dense:
    whole = partial(assemble, one.pieces, one.shape, read)
    beside = {
        name: partial(assemble, pieces, parameter_shape(pieces), read)
        for name, pieces in one.beside.items()
    }
    return Dense(one.formula, one.shape, whole, device, beside, once=once)


def assemble(pieces: Sequence[Piece], shape: tuple[int, ...], read: Read) -> torch.Tensor:
    """Return all of a parameter in float64, from its pieces, as the module has it."""
    whole = torch.empty(shape, dtype=torch.float64)
    for piece in pieces:
        whole[piece.part] = _values(piece, read)
    return whole


def _values(piece: Piece, read: Read) -> torch.Tensor:
    values = read(piece.entry)[piece.region]
    return values.mT if piece.transposed else values
