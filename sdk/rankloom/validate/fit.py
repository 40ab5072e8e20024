"""Rules of an adapter and a base together, from headers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Replacement, Rows
from rankloom.base import tying
from rankloom.base.heads import brings_head
from rankloom.base.locate import locate, nearest, resolve
from rankloom.base.orientation import is_assumed
from rankloom.base.pieces import parameter_shape
from rankloom.errors import BaseError, IncompatibleError
from rankloom.tensorfile.entries import FLOATS
from rankloom.validate.content import named
from rankloom.validate.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.adapter.change import Change, Target
    from rankloom.adapter.reader import Adapter
    from rankloom.base.model import Base, Piece
    from rankloom.finding import Finding

Placed = list[tuple["Target", "Piece"]]


@dataclass(frozen=True, slots=True)
class Placing:
    """Where an adapter's targets lie in a base.

    Attributes:
        placed: those that lie somewhere, with their tensors.
        lost: those for which the base has no tensor.
        findings: why any could not be placed.
    """

    placed: Placed
    lost: tuple[Target, ...]
    findings: tuple[Finding, ...]


def place(adapter: Adapter, base: Base) -> Placing:
    """Find every target's tensor in the base; TEN005 for those that have none."""
    placed: Placed = []
    lost: list[Target] = []
    refused: dict[str, Finding] = {}
    whole = tying.with_own(base, tying.ties(base))
    for target in adapter.targets:
        try:
            pieces = locate(whole, target)
        except (BaseError, IncompatibleError) as error:
            found = error.findings or [RULES["BASE007"].finding(error.message, fix=error.hint)]
            refused |= {finding.rule: finding for finding in found if finding.rule not in refused}
            continue
        if pieces:
            placed += [(target, piece) for piece in pieces]
        elif not _may_be_absent(target):
            lost.append(target)
    return Placing(placed, tuple(lost), (*refused.values(), *_lost(base, lost)))


def _may_be_absent(target: Target) -> bool:
    change = target.change
    optional = isinstance(change, Computed) and change.if_present
    return optional or brings_head(target.name, change)


def _lost(base: Base, lost: list[Target]) -> Iterator[Finding]:
    if absent := [target.name for target in lost]:
        near = nearest(base, absent[0])
        hint = f"; nearest to the first: {', '.join(near)}" if near else ""
        message = f"the base has no tensor for {len(absent)} targets: {named(absent)}{hint}"
        yield RULES["TEN005"].finding(message, where=absent[0])


def shapes(placed: Placed) -> Iterator[Finding]:
    """BASE002, BASE005: the change has the parameter's shape, in however many tensors it lies."""
    for _, group in groupby(placed, key=lambda pair: id(pair[0])):
        pairs = list(group)
        target, pieces = pairs[0][0], tuple(piece for _, piece in pairs)
        expected, found = target.change.shape, parameter_shape(pieces)
        if found == expected or expected is None:
            continue
        if _is_resized(target.change, found):
            message = f"{target.name} has {expected[0]} rows, the base has {found[0]}"
            yield RULES["BASE005"].finding(message, where=target.name)
            continue
        if pieces[0].entry.dtype in FLOATS:
            stored = list(pieces[0].entry.shape) if len(pieces) == 1 else list(found)
            kind = " (stored transposed)" if pieces[0].transposed else ""
            message = f"{target.name} changes {list(expected)}, the base has {stored}{kind}"
            yield RULES["BASE002"].finding(message, where=target.name)


def _is_resized(change: Change, found: tuple[int, ...]) -> bool:
    """Tell whether a change brings a vocabulary of another size: all that may differ."""
    return isinstance(change, Replacement) and change.shape[1:] == found[1:]


def tied(placed: Placed, base: Base) -> Iterator[Finding]:
    """BASE004: no changed tensor is one that is tied to another, unless both become the same."""
    ties = tying.ties(base)
    shared = ties.keys() | set(ties.values())
    # A target that lies in several pieces, or two names of one tensor, are spoken of once.
    changed = list(
        dict.fromkeys(
            target.name
            for target, piece in placed
            if piece.entry.name in shared and not isinstance(target.change, Rows)
        )
    )
    if changed:
        message = f"the base ties {named(changed)} to another tensor: applying gives both their own"
        yield RULES["BASE004"].finding(message, where=changed[0])


def quantised(placed: Placed) -> Iterator[Finding]:
    """BASE006: the changed tensors hold floats that can be added to.

    A counter, such as a normalisation's of its batches, is replaced by another one.
    """
    bad = {
        target.name: piece.entry.dtype
        for target, piece in placed
        if piece.entry.dtype not in FLOATS and not _is_counter(target.change, piece)
    }
    if bad:
        first = next(iter(bad))
        message = f"the base stores {named(list(bad))} as {bad[first]}: it is quantised"
        yield RULES["BASE006"].finding(message, where=first)


def _is_counter(change: Change, piece: Piece) -> bool:
    return isinstance(change, Replacement) and change.value.dtype == piece.entry.dtype == "I64"


def lacks_biases(adapter: Adapter, base: Base) -> bool:
    """Tell whether the base has none of the biases that the config says were trained."""
    bias = adapter.config.options.get("bias")
    if bias in {None, "all"}:
        return bias is not None and not any(name.endswith(".bias") for name in base.tensors)
    modules = dict.fromkeys(target.module for target in adapter.targets)
    try:
        return not any(resolve(base, f"{module}.bias") for module in modules)
    except BaseError:
        return False


def assumed(placed: Placed, base: Base) -> Iterator[Finding]:
    """BASE008: something tells how each changed matrix is stored."""
    stored = {
        piece.entry.name: target for target, piece in placed if piece.entry.name in base.tensors
    }
    names = [
        name
        for name, target in stored.items()
        if not isinstance(target.change, Replacement | Rows) and is_assumed(base, name)
    ]
    if names:
        message = f"{named(names)} are square, and nothing tells how they are stored"
        yield RULES["BASE008"].finding(f"{message}: taken as (out, in)", where=names[0])
