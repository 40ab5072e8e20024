"""What an adapter does to one base tensor: a small closed set of values, read lazily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankloom.tensorfile.header import TensorEntry


@dataclass(frozen=True, slots=True)
class LowRank:
    """ΔW = scale · B·A.

    Attributes:
        a: factor A, shape (rank, in).
        b: factor B, shape (out, rank).
        scale: the exact multiplier (alpha/r, or alpha/√r for rsLoRA), as float64.
    """

    a: TensorEntry
    b: TensorEntry
    scale: float

    @property
    def rank(self) -> int:
        """Columns of B."""
        return self.b.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the delta."""
        return self.b.shape[0], self.a.shape[1]


Change = LowRank


@dataclass(frozen=True, slots=True)
class Target:
    """One base tensor that an adapter changes.

    Attributes:
        module: the module's name in the model, without PEFT's prefix.
        kind: how the adapter stores the change (``"lora"``, ``"rslora"``).
        change: the change itself.
        parameter: the module's parameter, nearly always ``weight``.
    """

    module: str
    kind: str
    change: Change
    parameter: str = "weight"

    @property
    def name(self) -> str:
        """Full name of the changed parameter."""
        return f"{self.module}.{self.parameter}"
