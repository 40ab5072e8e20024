"""Where changes lie in a base, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rankloom.base.model import Piece
    from rankloom.change.formula import Formula
    from rankloom.tensorfile.header import TensorEntry


@dataclass(frozen=True, slots=True)
class Located:
    """One parameter's pieces in the base and what is added to it.

    Attributes:
        pieces: where it lies.
        formula: what is added.
        beside: where the other parameters of its module lie that the formula reads.
    """

    pieces: tuple[Piece, ...]
    formula: Formula
    beside: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name on disk of the (first) stored tensor."""
        return self.pieces[0].entry.name


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one parameter's change adds to one stored tensor.

    Attributes:
        piece: which part of the parameter lies where in the stored tensor.
        pieces: all pieces of the parameter, ``piece`` among them.
        shape: of the parameter, as the module has it.
        formula: what is added to the parameter.
        beside: as for :class:`Located`.
    """

    piece: Piece
    pieces: tuple[Piece, ...]
    shape: tuple[int, ...]
    formula: Formula
    beside: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor on disk that becomes another, or a new one.

    Attributes:
        name: its name on disk.
        source: header of the tensor that its values come from; ``None``: every value is an
            adapter's.
        dtype: dtype code that it has before any conversion.
        shape: as stored, afterwards.
        contributions: what is added, each to a region.
        file: the base's file whose successor it goes to.
        is_new: the base has no tensor of this name and shape.
    """

    name: str
    source: TensorEntry | None
    dtype: str
    shape: tuple[int, ...]
    contributions: tuple[Contribution, ...]
    file: Path
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Everything that changes in a base.

    Attributes:
        tensors: what changes, and what is new.
        config: fields of its config that change, with their new values.
    """

    tensors: tuple[Placed, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
