"""What is lost where a composition was brought to a smaller rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Loss:
    """What one target lost, or several together.

    Attributes:
        name: the target's name, or ``total``.
        rank: columns that were kept, of one expert where each has its own; the largest in a total.
        full: rank before.
        missing: Frobenius norm of what is missing.
        norm: Frobenius norm of what there was.
        optimal: whether no product of this rank misses less.
    """

    name: str
    rank: int
    full: int
    missing: float
    norm: float
    optimal: bool = True

    @property
    def error(self) -> float:
        """What is missing, as a share of the norm."""
        return self.missing / self.norm if self.norm else 0.0

    @property
    def energy(self) -> float:
        """The share of ‖ΔW‖² that is kept."""
        return 1 - self.error**2

    def __str__(self) -> str:
        """Return it as people read it."""
        optimum = ", the optimum" if self.optimal else ""
        kept = f"keeps {100 * self.energy:.4g} %"
        return f"rank {self.rank} {kept} (relative error {self.error:.3g}{optimum})"

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return {
            "name": self.name,
            "rank": self.rank,
            "full_rank": self.full,
            "relative_error": self.error,
            "optimal": self.optimal,
        }


@dataclass(frozen=True, slots=True)
class Losses:
    """What every target lost that was brought to a rank; empty: nothing was."""

    targets: tuple[Loss, ...] = ()

    @property
    def total(self) -> Loss:
        """All targets as if they were one: the root of the sum of squares."""
        return Loss(
            "total",
            max((loss.rank for loss in self.targets), default=0),
            max((loss.full for loss in self.targets), default=0),
            math.hypot(*(loss.missing for loss in self.targets)),
            math.hypot(*(loss.norm for loss in self.targets)),
            all(loss.optimal for loss in self.targets),
        )

    def __bool__(self) -> bool:
        return bool(self.targets)

    def __str__(self) -> str:
        """Return the total, then each target, the largest error first."""
        if not self.targets:
            return "nothing was brought to a smaller rank"
        ordered = sorted(self.targets, key=lambda loss: (-loss.error, loss.name))
        return "\n".join([str(self.total), *(f"  {loss.name}: {loss}" for loss in ordered)])
