"""Tensors that the base keeps once and a model uses twice, when they stop being equal.

An adapter's change is a module's, so a tied pair of which one changes is tied no longer: each gets
a tensor of its own. This is what PEFT's model computes while its adapter is not merged.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rankloom.adapter.change import Replacement, Rows
from rankloom.apply.placed import Located, Placed
from rankloom.base.model import Piece
from rankloom.change.formula import Sum
from rankloom.recipe.meeting import same

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rankloom.adapter.change import Change
    from rankloom.base.model import Base
    from rankloom.change.formula import Weighted


def with_own(base: Base, ties: Mapping[str, str]) -> Base:
    """Return the base as if every tied tensor were stored, under its own name.

    Args:
        base: a base.
        ties: name of each tensor that is tied → name of the one that it repeats.
    """
    own = {
        name: replace(base.tensors[source], name=name)
        for name, source in ties.items()
        if name not in base.tensors and source in base.tensors
    }
    return replace(base, tensors={**base.tensors, **own}) if own else base


def settle(
    located: Sequence[Located], base: Base, ties: Mapping[str, str]
) -> tuple[list[Located], set[str]]:
    """Decide which tied tensors stay tied.

    Trained tokens of the input embedding count for all that is tied to it, and values of the base
    for all that is tied to each other, as they do in PEFT.

    Args:
        located: what is added to each parameter of ``base``.
        base: what :func:`with_own` returned.
        ties: as for :func:`with_own`.

    Returns:
        What is added to each parameter, and the names of those that are tied no longer.
    """
    tied = ties.keys() | set(ties.values())
    by_name = {item.name: item for item in located if item.name in tied}
    others = [item for item in located if item.name not in tied]
    untied = set[str]()
    for members in _groups(ties):
        terms = {name: _terms(name, members, by_name) for name in members}
        if any(not _same(terms[members[0]], other) for other in terms.values()):
            untied |= set(members)
        for name, found in terms.items():
            if found:
                pieces = by_name[name].pieces if name in by_name else (Piece(base.tensors[name]),)
                by_name[name] = Located(pieces, Sum(found))
    return [*others, *by_name.values()], untied


def own_tensors(base: Base, whole: Base) -> dict[str, Placed]:
    """Return a tensor of its own, equal to what it was tied to, for all that the base lacks."""
    return {
        name: Placed(name, entry, entry.dtype, entry.shape, (), entry.path, is_new=True)
        for name, entry in whole.tensors.items()
        if name not in base.tensors
    }


def _groups(ties: Mapping[str, str]) -> Iterable[list[str]]:
    groups: dict[str, list[str]] = {}
    for name, source in ties.items():
        groups.setdefault(source, [source]).append(name)
    return groups.values()


def _terms(
    name: str, members: Sequence[str], by_name: Mapping[str, Located]
) -> tuple[Weighted, ...]:
    """Return what is added to one of several tied tensors: its own, and what spreads to it."""
    found = list(by_name[name].formula.terms) if name in by_name else []
    for other in (other for other in members if other != name and other in by_name):
        for term in by_name[other].formula.terms:
            spreads = _spreads(term.change, from_source=other == members[0])
            if spreads and not any(_equal(term, known) for known in found):
                found.append(term)
    return tuple(found)


def _spreads(change: Change, *, from_source: bool) -> bool:
    if isinstance(change, Rows):
        return change.spreads and from_source
    return isinstance(change, Replacement) and change.spreads


def _same(one: Sequence[Weighted], two: Sequence[Weighted]) -> bool:
    return len(one) == len(two) and all(map(_equal, one, two))


def _equal(one: Weighted, two: Weighted) -> bool:
    return one.weight == two.weight and same(one.change, two.change)
