"""What is added to one base tensor, as values: one class for each way to combine changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankloom.adapter.change import Change


@dataclass(frozen=True, slots=True)
class Weighted:
    """One change and the caller's weight for it."""

    weight: float
    change: Change


@dataclass(frozen=True, slots=True)
class Sum:
    """ΔW = Σ weightᵢ · deltaᵢ; at least one term, all of one shape."""

    terms: tuple[Weighted, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the delta."""
        return self.terms[0].change.shape

    @property
    def rank(self) -> int:
        """Rank of the sum as factors: the sum of the ranks."""
        return sum(term.change.rank for term in self.terms)


Formula = Sum


@dataclass(frozen=True, slots=True)
class TargetChange:
    """One parameter of a model and what is added to it.

    Attributes:
        module: the module's name in the model.
        parameter: the module's parameter, nearly always ``weight``.
        formula: what is added.
    """

    module: str
    parameter: str
    formula: Formula

    @property
    def name(self) -> str:
        """Full name of the parameter."""
        return f"{self.module}.{self.parameter}"

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the delta."""
        return self.formula.shape
