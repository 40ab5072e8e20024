"""Puts what was measured of several targets together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.compose.interference.value import Pair, Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

_SUMS = ("square_first", "square_second", "inner", "met", "opposed")
_MEANS = (
    "overlap_out",
    "overlap_in",
    "chance_out",
    "chance_in",
    "crosstalk_out",
    "crosstalk_in",
)


def gather(name: str, scopes: Sequence[Scope]) -> Scope:
    """Return several scopes as one, as if all their elements were one long delta.

    A pair is about the targets where both adapters are; cancellation is about all.

    Args:
        name: of the new scope.
        scopes: at least one, with no target in common.
    """
    squares: dict[str, float] = {}
    pairs: dict[tuple[str, str], list[Pair]] = {}
    for scope in scopes:
        for label, square in scope.squares:
            squares[label] = squares.get(label, 0.0) + square
        for pair in scope.pairs:
            key = (pair.first, pair.second)
            if key[::-1] in pairs:
                key, pair = key[::-1], _turned(pair)  # noqa: PLW2901 - the same pair, turned
            pairs.setdefault(key, []).append(pair)
    return Scope(
        name=name,
        targets=sum(scope.targets for scope in scopes),
        squares=tuple(squares.items()),
        square=sum(scope.square for scope in scopes),
        pairs=tuple(_gather_pairs(same) for same in pairs.values()),
        spectrum=scopes[0].spectrum if len(scopes) == 1 else None,
    )


def _gather_pairs(pairs: Sequence[Pair]) -> Pair:
    targets = sum(pair.targets for pair in pairs)
    sums = {name: sum(getattr(pair, name) for pair in pairs) for name in _SUMS}
    means = {
        name: sum(getattr(pair, name) * pair.targets for pair in pairs) / targets for name in _MEANS
    }
    return Pair(pairs[0].first, pairs[0].second, targets, **sums, **means)


def _turned(pair: Pair) -> Pair:
    """Return the same pair with first and second exchanged."""
    values = {name: getattr(pair, name) for name in (*_SUMS, *_MEANS)}
    values["square_first"], values["square_second"] = pair.square_second, pair.square_first
    return Pair(pair.second, pair.first, pair.targets, **values)
