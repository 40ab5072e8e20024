"""Finds the base tensors of every change, and refuses before anything is written."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Replacement, Rows
from rankloom.apply.config_edits import config_edits
from rankloom.apply.heads import new_heads
from rankloom.apply.placed import Contribution, Located, Placed, Placement
from rankloom.apply.resize import check_vocabulary, is_resized, resized
from rankloom.apply.untie import own_tensors, settle
from rankloom.base import tying
from rankloom.base.locate import locate, nearest
from rankloom.base.orientation import is_assumed
from rankloom.base.pieces import local_shape, parameter_shape
from rankloom.change.dtypes import FLOATS, INTEGERS
from rankloom.change.formula import Sum
from rankloom.errors import IncompatibleError, RankloomWarning
from rankloom.finding import Finding
from rankloom.recipe.meeting import clash
from rankloom.tensorfile.index import sizes, spans, swapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rankloom.adapter.change import Target
    from rankloom.base.model import Base, Piece
    from rankloom.change.formula import Formula, Summand, TargetChange
    from rankloom.tensorfile.header import TensorEntry


def place(base: Base, changes: Sequence[TargetChange]) -> Placement:
    """Find the base tensors of all changes.

    Adapters that name one tensor differently (with and without the model's prefix) meet here, and
    their changes are summed before anything is rounded.

    Raises:
        IncompatibleError: with a finding for every change that has no place in this base.
    """
    ties = tying.ties(base)
    whole = tying.with_own(base, ties)
    located, absent, findings = find(changes, partial(locate, whole))
    settled, untied = settle(located, whole, ties)
    resizing = [item for item in settled if is_resized(item)]
    rest = [item for item in settled if not is_resized(item)]
    findings += [finding for item in resizing if (finding := _clash(item))]
    tensors = {item.name: resized(item) for item in resizing}
    for name, found in by_tensor(rest, findings).items():
        entry, new = found[0].piece.entry, name not in base.tensors
        tensors[name] = Placed(name, entry, entry.dtype, entry.shape, found, entry.path, new)
    if untied:
        tensors = {**own_tensors(base, whole), **tensors}
    else:  # what is still tied is written once
        tensors = {name: item for name, item in tensors.items() if name in base.tensors}
    heads = new_heads(base, absent)
    tensors |= heads
    lost = [change.name for change in absent if change.name not in heads]
    findings += [lost_target(str(base.path), name, nearest(base, name)) for name in lost]
    findings += check_vocabulary(base, tensors)
    raise_for(findings)
    _tell_assumed(base, rest)
    return Placement(tuple(tensors.values()), config_edits(base, tensors, untied=bool(untied)))


def _tell_assumed(base: Base, located: Iterable[Located]) -> None:
    """Say which matrices are taken as stored like torch's, where nothing in the base says it."""
    names = {
        piece.entry.name
        for item in located
        if not all(isinstance(term.change, Replacement | Rows) for term in item.formula.terms)
        for piece in item.pieces
        if piece.entry.name in base.tensors and is_assumed(base, piece.entry.name)
    }
    if names:
        count = f" and {len(names) - 1} more" if len(names) > 1 else ""
        message = f"BASE008 {min(names)}{count}: square, and no config.json says how it is stored"
        message += "; taken as (out, in), as torch.nn.Linear is"
        warnings.warn(RankloomWarning(message), stacklevel=4)


def raise_for(findings: Sequence[Finding]) -> None:
    """Raise one error for all findings, if there is one.

    Raises:
        IncompatibleError: with the findings.
    """
    if findings:
        message = f"{findings[0]}" + (f" and {len(findings) - 1} more" if findings[1:] else "")
        hint = "the adapters were made for another base; nothing was written"
        raise IncompatibleError(message, hint=hint, findings=findings)


def find(
    changes: Iterable[TargetChange], locate: Callable[[Target], tuple[Piece, ...]]
) -> tuple[list[Located], list[TargetChange], list[Finding]]:
    """Return what is found, each parameter once; the changes without a place; what is wrong."""
    found: dict[str, Located] = {}
    absent: list[TargetChange] = []
    findings: list[Finding] = []
    for change in (part for whole in changes for part in whole.by_orientation()):
        if pieces := locate(change.target):
            key = str([(p.entry.name, p.transposed, p.region, p.part) for p in pieces])
            earlier = found[key].formula.terms if key in found else ()
            formula = Sum(earlier + change.formula.terms)
            beside = {name: locate(change.beside(name)) for name in formula.reads}
            findings += [_unread(change, name) for name, where in beside.items() if not where]
            found[key] = Located(pieces, formula, beside)
        elif not all(_may_be_absent(term.change) for term in change.formula.terms):
            absent.append(change)
    return list(found.values()), absent, findings


def _may_be_absent(change: Summand) -> bool:
    return isinstance(change, Computed) and change.if_present


def lost_target(base: str, name: str, near: Sequence[str]) -> Finding:
    """Return the finding that a base has no place for a change."""
    message = f"{base} has no tensor {name}; nearest: {', '.join(near) or 'nothing like it'}"
    return Finding("TEN005", message, where=name)


def _unread(change: TargetChange, name: str) -> Finding:
    message = f"{change.name} changes by what {change.module}.{name} is, which the base has not"
    return Finding("TEN005", message, where=change.name)


def _clash(item: Located) -> Finding | None:
    """Find what two spellings of one parameter, or a tie, hide until they meet here."""
    changes = [term.change for term in item.formula.terms]
    if not any(clash(one, two) for one, two in combinations(changes, 2)):
        return None
    message = f"two adapters put values of their own in {item.name}"
    return Finding("MRG005", message, where=item.name, fix="compose one of them only")


def by_tensor(
    located: Iterable[Located], findings: list[Finding]
) -> dict[str, tuple[Contribution, ...]]:
    """Return what is added to each stored tensor by its name; add to ``findings`` what cannot."""
    by_name: dict[str, tuple[Contribution, ...]] = {}
    for item in located:
        shape, formula = parameter_shape(item.pieces), item.formula.put_in_once
        if problem := _clash(item) or _problem(replace(item, formula=formula), shape):
            findings.append(problem)
            continue
        for piece in item.pieces:
            one = Contribution(piece, item.pieces, shape, formula, item.beside)
            by_name[piece.entry.name] = (*by_name.get(piece.entry.name, ()), one)
    return by_name


def _problem(item: Located, shape: tuple[int, ...]) -> Finding | None:
    first, wanted = item.pieces[0], item.formula.shape
    for piece in item.pieces:
        entry = piece.entry
        if entry.dtype not in FLOATS and not _is_copied(entry, item.formula):
            return _inexact(entry, item.formula)
        if sizes(spans(piece.part, shape)) != local_shape(piece):
            message = f"{entry.name} is {entry.shape} in the base, which does not fit into {shape}"
            return Finding("BASE002", message, where=entry.name)
    if wanted is not None and wanted != shape:
        stored_as = swapped(wanted) if first.transposed else wanted
        stored = first.entry.shape if len(item.pieces) == 1 else shape
        message = f"{first.entry.name} is {stored} in the base, but the change is {stored_as}"
        return Finding("BASE002", message, where=first.entry.name)
    return None


def _inexact(entry: TensorEntry, formula: Formula) -> Finding:
    message = f"{entry.name} is stored as {entry.dtype}: "
    if entry.dtype in INTEGERS and all(isinstance(t.change, Replacement) for t in formula.terms):
        message += "of a whole number no part can be replaced, only all of it, by one such number"
        fix = "give this parameter weight 1 by a filter, or train without its module"
    else:
        message += "a delta cannot be added exactly"
        fix = "use the unquantised base"
    return Finding("BASE006", message, where=entry.name, fix=fix)


def _is_copied(entry: TensorEntry, formula: Formula) -> bool:
    """Tell whether a tensor of integers is put in the place of one of the same dtype."""
    [term, *others] = formula.terms
    if others or term.weight != 1 or not isinstance(term.change, Replacement):
        return False
    return entry.dtype in INTEGERS and term.change.value.dtype == entry.dtype
