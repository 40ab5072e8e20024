"""Tensors that the base keeps once and a model uses twice, when they stop being equal.

An adapter's change is a module's, so a tied pair of which one changes is tied no longer: each gets
a tensor of its own. This is what PEFT's model computes while its adapter is not merged.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rankloom.adapter.change import Replacement, Rows
from rankloom.apply.placed import Located, Placed
from rankloom.apply.resize import is_head
from rankloom.base.model import Piece
from rankloom.change.formula import Sum
from rankloom.recipe.meeting import same

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rankloom.base.model import Base
    from rankloom.change.formula import Summand, Weighted


def settle(
    located: Sequence[Located], base: Base, ties: Mapping[str, str]
) -> tuple[list[Located], set[str]]:
    """Decide which tied tensors stay tied.

    Trained tokens of the input embedding count for all that is tied to it, and values of the base
    for all that is tied to each other, as they do in PEFT.

    Args:
        located: what is added to each parameter of ``base``.
        base: what :func:`rankloom.base.tying.with_own` returned.
        ties: as for the same.

    Returns:
        What is added to each parameter, and the names of those that are tied no longer.
    """
    tied = ties.keys() | set(ties.values())
    by_name = {item.name: item for item in located if item.name in tied}
    settled = [item for item in located if item.name not in tied]
    untied = set[str]()
    for members in _groups(ties):
        terms = {name: _terms(name, members, by_name) for name in members}
        if any(not _same(terms[members[0]], other) for other in terms.values()):
            untied |= set(members)
        for name, found in terms.items():
            item = by_name.get(name) or Located((Piece(base.tensors[name]),), Sum(()))
            settled += [replace(item, formula=Sum(found))] if found else []
    return settled, untied


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
    """Return what is added to one of several tied tensors: its own, and what reaches it."""
    own = by_name[name].formula.terms if name in by_name else ()
    others = [other for other in members if other != name and other in by_name]
    reaching = [
        replace(term, change=change)
        for other in others
        for term in by_name[other].formula.terms
        if (change := _spread(term.change, is_input=not is_head(other)))
    ]
    return (*own, *reaching)


def _spread(change: Summand, *, is_input: bool) -> Replacement | Rows | None:
    """Return what a change of one tensor does to those that are tied to it."""
    if isinstance(change, Rows):
        return change if change.spreads and is_input else None
    if not isinstance(change, Replacement) or not change.spreads:
        return None
    rows = change.rows if change.rows and change.rows.spreads and is_input else None
    return replace(change, rows=rows)


def _same(one: Sequence[Weighted], two: Sequence[Weighted]) -> bool:
    """Tell whether two sums have the same terms, in whatever order."""
    left = list(two)
    for term in one:
        place = next((n for n, other in enumerate(left) if _equal(term, other)), None)
        if place is None:
            return False
        del left[place]
    return not left


def _equal(one: Weighted, two: Weighted) -> bool:
    return one.weight == two.weight and same(one.change, two.change)
