"""Finds the base tensors of every change, and refuses before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Replacement
from rankloom.base.locate import locate, nearest
from rankloom.base.pieces import local_shape, parameter_shape
from rankloom.change.dtypes import FLOATS, INTEGERS
from rankloom.change.formula import Formula, Sum
from rankloom.errors import IncompatibleError
from rankloom.finding import Finding
from rankloom.recipe.meeting import clash
from rankloom.tensorfile.index import sizes, spans, swapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rankloom.base.model import Base, Piece
    from rankloom.change.formula import TargetChange, Weighted
    from rankloom.tensorfile.header import TensorEntry


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one parameter's change adds to one stored tensor.

    Attributes:
        piece: which part of the parameter lies where in the stored tensor.
        pieces: all pieces of the parameter, ``piece`` among them.
        shape: of the parameter, as the module has it.
        formula: what is added to the parameter.
    """

    piece: Piece
    pieces: tuple[Piece, ...]
    shape: tuple[int, ...]
    formula: Formula


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
        file: where a new tensor goes to.
    """

    name: str
    source: TensorEntry | None
    dtype: str
    shape: tuple[int, ...]
    contributions: tuple[Contribution, ...]
    file: Path

    @property
    def in_place(self) -> bool:
        """Whether the tensor keeps its place in its file."""
        source = self.source
        return source is not None and (source.name, source.shape) == (self.name, self.shape)


def place(base: Base, changes: Sequence[TargetChange]) -> tuple[Placed, ...]:
    """Return one ``Placed`` for every base tensor that changes.

    Adapters that name one tensor differently (with and without the model's prefix) meet here, and
    their changes are summed before anything is rounded.

    Raises:
        IncompatibleError: with a finding for every change that has no place in this base.
    """
    findings: list[Finding] = []
    found: dict[str, tuple[tuple[Piece, ...], Formula]] = {}
    for change in changes:
        pieces = locate(base, change.target)
        if not pieces:
            findings += _absent(base, change)
            continue
        key = str([(p.entry.name, p.transposed, p.region, p.part) for p in pieces])
        earlier = found[key][1].terms if key in found else ()
        findings += _clashes(change, earlier)
        found[key] = pieces, Sum(earlier + change.formula.terms)
    placed = _by_tensor(found.values(), findings)
    if findings:
        message = f"{findings[0]}" + (f" and {len(findings) - 1} more" if findings[1:] else "")
        hint = "the adapters were made for another base; nothing was written"
        raise IncompatibleError(message, hint=hint, findings=findings)
    return placed


def _absent(base: Base, change: TargetChange) -> list[Finding]:
    changes = [term.change for term in change.formula.terms]
    if all(isinstance(item, Computed) and item.if_present for item in changes):
        return []
    near = ", ".join(nearest(base, change.name)) or "nothing like it"
    message = f"{base.path} has no tensor {change.name}; nearest: {near}"
    return [Finding("TEN005", message, where=change.name)]


def _clashes(change: TargetChange, earlier: Sequence[Weighted]) -> list[Finding]:
    """Find what two spellings of one parameter hide until they meet here."""
    pairs = product((term.change for term in earlier), change.formula.terms)
    if not any(clash(one, two.change) for one, two in pairs):
        return []
    message = f"two adapters put values of their own in {change.name}"
    return [Finding("MRG005", message, where=change.name, fix="compose one of them only")]


def _by_tensor(
    found: Iterable[tuple[tuple[Piece, ...], Formula]], findings: list[Finding]
) -> tuple[Placed, ...]:
    by_name: dict[str, Placed] = {}
    for pieces, formula in found:
        shape = parameter_shape(pieces)
        if problem := _problem(pieces, shape, formula):
            findings.append(problem)
            continue
        for piece in pieces:
            one, entry = Contribution(piece, pieces, shape, formula), piece.entry
            earlier = by_name.get(entry.name)
            all_ = (*earlier.contributions, one) if earlier else (one,)
            by_name[entry.name] = Placed(
                entry.name, entry, entry.dtype, entry.shape, all_, entry.path
            )
    return tuple(by_name.values())


def _problem(pieces: tuple[Piece, ...], shape: tuple[int, ...], formula: Formula) -> Finding | None:
    entry = pieces[0].entry
    for piece in pieces:
        if piece.entry.dtype not in FLOATS and not _is_copied(piece.entry, formula):
            stored = f"{piece.entry.name} is stored as {piece.entry.dtype}"
            message = f"{stored}: a delta cannot be added exactly"
            return Finding("BASE006", message, where=entry.name, fix="use the unquantised base")
        if sizes(spans(piece.part, shape)) != local_shape(piece):
            message = f"{piece.entry.name} is {piece.entry.shape} in the base, which does not fit"
            return Finding("BASE002", f"{message} into {shape}", where=entry.name)
    wanted = formula.shape
    if wanted is not None and wanted != shape:
        stored_as = swapped(wanted) if pieces[0].transposed else wanted
        message = f"{entry.name} is {entry.shape} in the base, but the change is {stored_as}"
        return Finding("BASE002", message, where=entry.name)
    return None


def _is_copied(entry: TensorEntry, formula: Formula) -> bool:
    """Tell whether a tensor of integers is put in the place of one of the same dtype."""
    [term, *others] = formula.terms
    if others or term.weight != 1 or not isinstance(term.change, Replacement):
        return False
    return entry.dtype in INTEGERS and term.change.value.dtype == entry.dtype
