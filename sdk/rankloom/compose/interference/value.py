"""What was measured, as values: of one target, of a layer, or of everything."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rankloom.compose.factors.value import Factors


class Part(NamedTuple):
    """What one adapter brings to one target.

    Attributes:
        label: the adapter's name in the report.
        weight: the caller's weight for it on this target.
        factors: its delta, with the scale folded in and without the weight.
    """

    label: str
    weight: float
    factors: Factors


@dataclass(frozen=True, slots=True)
class Pair:
    """Two adapters where both have a delta. x and y are the *weighted* deltas.

    A negative weight turns a delta around: what is reported is what will be added. Over several
    targets, x and y are all of their elements; overlaps and crosstalks are means over targets.

    Attributes:
        first: label of the adapter that brings x.
        second: label of the adapter that brings y.
        targets: how many targets this is about.
        square_first: ‖x‖².
        square_second: ‖y‖².
        inner: ⟨x, y⟩.
        overlap_out: mean cos² of the principal angles between the column spaces of the two B: how
            much the deltas write to the same directions. 0: none, 1: the smaller lies in the other.
        overlap_in: the same of the row spaces of A: how much they read the same directions.
        chance_out: what ``overlap_out`` is on average for random spaces: r/out, r the larger rank.
        chance_in: the same for ``overlap_in``: r/in.
        crosstalk_out: ‖B₁ᵀB₂‖ / (‖B₁‖‖B₂‖), which also knows how strong each direction is.
        crosstalk_in: ‖A₁A₂ᵀ‖ / (‖A₁‖‖A₂‖).
        met: Σ min(|xᵢⱼ|, |yᵢⱼ|) over the sampled rows, scaled up to all rows.
        opposed: the same of the elements in which x and y have opposite signs.
    """

    first: str
    second: str
    targets: int
    square_first: float
    square_second: float
    inner: float
    overlap_out: float
    overlap_in: float
    chance_out: float
    chance_in: float
    crosstalk_out: float
    crosstalk_in: float
    met: float
    opposed: float

    @property
    def cosine(self) -> float | None:
        """⟨x, y⟩ / ‖x‖‖y‖; ``None``: one of them is 0."""
        size = math.sqrt(self.square_first) * math.sqrt(self.square_second)
        return max(-1.0, min(1.0, self.inner / size)) if size else None

    @property
    def ratio(self) -> float | None:
        """‖x‖ / ‖y‖; ``None``: y is 0."""
        below = math.sqrt(self.square_second)
        return math.sqrt(self.square_first) / below if below else None

    @property
    def dominance(self) -> float | None:
        """How many times the stronger of the two is as long as the other; ``None``: one is 0."""
        return max(self.ratio, 1 / self.ratio) if self.ratio else None

    @property
    def cancellation(self) -> float | None:
        """1 − ‖x + y‖² / (‖x‖² + ‖y‖²): 1, all is lost; 0, right angles; −1, they are equal."""
        size = self.square_first + self.square_second
        return -2 * self.inner / size if size else None

    @property
    def sign_conflict(self) -> float | None:
        """Estimate: of the magnitude that both bring to an element, the share that is opposed.

        About ½ for unrelated adapters, 0 if all signs agree; ``None``: they share no element.
        """
        return self.opposed / self.met if self.met else None

    @property
    def overlap(self) -> float:
        """The larger of both overlaps, as a multiple of chance."""
        pairs = (self.overlap_out, self.chance_out), (self.overlap_in, self.chance_in)
        return max(found / chance if chance else 0.0 for found, chance in pairs)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON value, with six digits."""
        names = ("cosine", "ratio", "dominance", "cancellation", "sign_conflict")
        stored = ("overlap_out", "overlap_in", "chance_out", "chance_in")
        crosstalk = ("crosstalk_out", "crosstalk_in")
        figures = {name: rounded(getattr(self, name)) for name in (*names, *stored, *crosstalk)}
        return {"adapters": [self.first, self.second], "targets": self.targets, **figures}


@dataclass(frozen=True, slots=True)
class Spectrum:
    """How many directions the composition of one target has.

    Attributes:
        rank: Σ of the adapters' ranks.
        rank_99: the smallest rank that keeps 99 % of ‖ΔW‖².
        effective: e to the entropy of the singular values as shares (Roy & Vetterli 2007, *The
            effective rank*): n for n equal ones.
    """

    rank: int
    rank_99: int
    effective: float

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return {**{field.name: rounded(getattr(self, field.name)) for field in fields(self)}}


@dataclass(frozen=True, slots=True)
class Scope:
    """What was measured of a target, a layer, or everything.

    Attributes:
        name: the target's or the layer's name, or ``total``.
        targets: how many targets are in it.
        squares: label and ‖w·Δ‖² of each adapter that is there.
        square: ‖Σ w·Δ‖².
        pairs: every two adapters that meet in it.
        spectrum: of a single target.
    """

    name: str
    targets: int
    squares: tuple[tuple[str, float], ...]
    square: float
    pairs: tuple[Pair, ...]
    spectrum: Spectrum | None = None

    @property
    def cancellation(self) -> float | None:
        """1 − ‖Σ w·Δ‖² / Σ ‖w·Δ‖²; below 0 where the adapters reinforce each other."""
        size = sum(square for _, square in self.squares)
        return 1 - self.square / size if size else None

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON value."""
        return {
            "name": self.name,
            "targets": self.targets,
            "norms": {label: rounded(math.sqrt(square)) for label, square in self.squares},
            "cancellation": rounded(self.cancellation),
            "spectrum": self.spectrum and self.spectrum.to_json(),
            "pairs": [pair.to_json() for pair in self.pairs],
        }


def rounded(number: float | None) -> float | int | None:
    """Return a figure with six digits, which is more than any of them is good for."""
    if number is None or isinstance(number, int):
        return number
    return float(f"{number:.6g}")
