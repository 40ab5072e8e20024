"""What is added to one parameter, as values: one class for each way to combine changes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from rankloom.adapter.change import (
    Computed,
    ExpertLowRank,
    LowRank,
    Replacement,
    Rows,
    Target,
    rank_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import torch

    from rankloom.adapter.change import Change

    Portion = Callable[[int, int], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """ΔW = b·a, of factors in memory, for each expert where there are experts.

    Attributes:
        b: (out, r) or (experts, out, r), float32 or float64.
        a: (r, in) or (experts, r, in), of the same dtype.
        is_embedding: PEFT keeps it as an embedding's factors.
    """

    b: torch.Tensor
    a: torch.Tensor
    is_embedding: bool = False

    @property
    def rank(self) -> int:
        """Columns of b."""
        return self.b.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter."""
        return (*self.b.shape[:-1], self.a.shape[-1])


@dataclass(frozen=True, slots=True, eq=False)
class ByRows:
    """ΔW of which some rows are computed when they are asked for.

    Attributes:
        method: what computes it.
        shape: (out, in) or (experts, out, in).
        open: of the number of an expert (``None``: there are none), what gives rows ``start`` to
            ``stop`` of its matrix as (stop − start, in) float32, the same bits in any portions.
    """

    method: str
    shape: tuple[int, ...]
    open: Callable[[int | None], Portion]


Summand: TypeAlias = "Change | Product | ByRows"


@dataclass(frozen=True, slots=True)
class Weighted:
    """One change, or what was made of several, and its weight."""

    weight: float
    change: Summand


def sum_of_weights(weights: Sequence[float]) -> float:
    """Return a sum, and 1 where the numbers that the weights stand for may add up to it.

    A weight is a number rounded to 53 bits, by at most 2⁻⁵³ of it: ten tenths, or 49 parts of a
    49th, are one, though the floats' exact sum is not.
    """
    total = math.fsum(weights)
    rounded = math.fsum(abs(weight) for weight in weights) * 2.0**-53
    return 1.0 if abs(total - 1) <= rounded + 2.0**-53 else total


@dataclass(frozen=True, slots=True)
class Sum:
    """ΔW = Σ weightᵢ · (Wᵢ′ − W); at least one term, all of one shape."""

    terms: tuple[Weighted, ...]

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the parameter, if any of the changes knows it."""
        return shape_of(term.change for term in self.terms)

    @property
    def is_low_rank(self) -> bool:
        """Whether every term is a product of two factors, for each expert perhaps."""
        kinds = LowRank | ExpertLowRank | Product
        return all(isinstance(term.change, kinds) for term in self.terms)

    @property
    def replaces(self) -> bool:
        """Whether a term puts values in the place of others."""
        return any(isinstance(term.change, Replacement | Rows) for term in self.terms)

    @property
    def share(self) -> float:
        """Weight of all terms that put in a whole tensor, see :func:`sum_of_weights`."""
        return sum_of_weights([t.weight for t in self.terms if isinstance(t.change, Replacement)])

    @property
    def put_in_once(self) -> Sum:
        """The same, with a whole tensor that several terms put in as one term: to the last bit.

        They all put in the same values; others clash (MRG005), which is found before.
        """
        found = [term for term in self.terms if isinstance(term.change, Replacement)]
        if len(found) < 2:
            return self
        others = tuple(term for term in self.terms if not isinstance(term.change, Replacement))
        return Sum((Weighted(self.share, found[0].change), *others))

    @property
    def needs_base(self) -> bool:
        """Whether a term cannot be computed without all values of the parameter."""
        changes = [term.change for term in self.terms]
        return any(isinstance(change, Computed) and change.needs_base for change in changes)

    @property
    def reads(self) -> tuple[str, ...]:
        """Other parameters of the module whose values some term needs."""
        changes = [term.change for term in self.terms if isinstance(term.change, Computed)]
        return tuple(dict.fromkeys(name for change in changes for name in change.reads))

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of the terms that have one; where all do, the sum's as factors is their sum."""
        found = [_rank_of(term.change) for term in self.terms]
        return tuple(rank for rank in found if rank is not None)

    @property
    def rank(self) -> int | None:
        """Rank of the sum as factors; ``None``: not every term has one."""
        return sum(self.ranks) if len(self.ranks) == len(self.terms) else None


def _rank_of(change: Summand) -> int | None:
    if isinstance(change, ByRows):
        return None
    return change.rank if isinstance(change, Product) else rank_of(change)


Formula = Sum


def shape_of(changes: Iterable[Summand]) -> tuple[int, ...] | None:
    """Return the shape of the parameter that some changes are of, if one of them knows it."""
    return next((change.shape for change in changes if change.shape is not None), None)


@dataclass(frozen=True, slots=True)
class TargetChange:
    """One parameter of a model and what is added to it.

    Attributes:
        module: the module's name in the model.
        parameter: the module's parameter, nearly always ``weight``; empty: one of ``candidates``.
        formula: what is added.
        candidates: names of which the base decides one; see ``rankloom.adapter.change.Target``.
        kinds: how the adapters store it.
        origin: the change of one of the adapters, where the formula is made of something else.
        fan_in_fan_out: see :class:`rankloom.adapter.change.Target`.
    """

    module: str
    parameter: str
    formula: Formula
    candidates: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()
    origin: Change | None = None
    fan_in_fan_out: bool = False

    @property
    def name(self) -> str:
        """Full name of the parameter; where only the base can tell it, all that it can be."""
        return self.target.name

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the parameter, if any of the changes knows it."""
        return self.formula.shape

    @property
    def target(self) -> Target:
        """The parameter as the base's names know it."""
        change = self.origin or self.formula.terms[0].change
        assert not isinstance(change, Product | ByRows)  # noqa: S101 - those have an origin
        where = self.parameter, self.candidates, self.fan_in_fan_out
        return Target(self.module, "sum", change, *where)

    def beside(self, parameter: str) -> Target:
        """Return another parameter of the same module."""
        return replace(self.target, parameter=parameter, candidates=())

    def by_orientation(self) -> tuple[TargetChange, ...]:
        """Split it into what counts the parameter as the module keeps it, and what as (out, in).

        Values that are put in the place of others are of the first sort.
        """
        sorts: dict[bool, tuple[Weighted, ...]] = {}
        for term in self.formula.terms:
            kept = isinstance(term.change, Replacement)
            sorts[kept] = (*sorts.get(kept, ()), term)
        return tuple(replace(self, formula=Sum(terms)) for terms in sorts.values())
