"""What an adapter does to one base tensor: a small closed set of values, read lazily.

Each says what one adapter alone makes of a parameter, W → W′; a composition is
W + Σ weightᵢ · (Wᵢ′ − W), so a weight multiplies whatever stands for W′ − W.

===================  ==============================================================
:class:`LowRank`     W′ = W + scale · B·A, from two factors
:class:`ExpertLowRank`  the same for each expert of a parameter with three dimensions
:class:`Replacement` W′ is a tensor of the file
:class:`Rows`        some rows of W′ are rows of the file
:class:`Computed`    W′ − W is what the formula of its kind computes (``rankloom.change.kinds``)
===================  ==============================================================

Shapes are those of the module's parameter as torch has it: (out, in) for a linear layer, also
where transformers' ``Conv1D`` stores (in, out); (rows, width) for an embedding; (out, in/groups,
*kernel) for a convolution.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.tensorfile.header import TensorEntry


@dataclass(frozen=True, slots=True)
class LowRank:
    """ΔW = scale · B·A.

    Attributes:
        a: factor A, shape (rank, in).
        b: factor B, shape (out, rank).
        scale: the exact multiplier (alpha/r, or alpha/√r for rsLoRA), as float64.
        transposed: ΔW = scale · (B·A)ᵀ instead, as for embeddings.
    """

    a: TensorEntry
    b: TensorEntry
    scale: float
    transposed: bool = False

    @property
    def rank(self) -> int:
        """Columns of B."""
        return self.b.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the delta."""
        out, into = self.b.shape[0], self.a.shape[1]
        return (into, out) if self.transposed else (out, into)


@dataclass(frozen=True, slots=True)
class ExpertLowRank:
    """ΔW[e] = scale · Bₑ·Aₑ for each expert e of a parameter (experts, …).

    PEFT keeps the factors of all experts in two matrices: the rows of A are expert-major, the
    columns of B are rank-major: ``Aₑ = A.view(experts, r, in)[e]``,
    ``Bₑ = B.view(out, r, experts)[:, :, e]``. Whether the parameter is (experts, out, in) or
    (experts, in, out) is known only from the base.

    Attributes:
        a: shape (experts · r, in).
        b: shape (out, r · experts).
        rank: r, of one expert.
        scale: as for :class:`LowRank`.
    """

    a: TensorEntry
    b: TensorEntry
    rank: int
    scale: float

    @property
    def experts(self) -> int:
        """Number of experts."""
        return self.a.shape[0] // self.rank

    @property
    def shape(self) -> tuple[int, int, int]:
        """(experts, out, in)."""
        return self.experts, self.b.shape[0], self.a.shape[1]


@dataclass(frozen=True, slots=True)
class Replacement:
    """W′ is ``value``; where its first dimension is longer than W's, the base grows.

    Attributes:
        value: the new parameter.
        rows: what some rows of W′ are instead, where an embedding was saved and trained tokens too.
        spreads: these are values of the base itself, so all parameters that it ties to this one
            have them too.
    """

    value: TensorEntry
    rows: Rows | None = None
    spreads: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the new parameter."""
        return self.value.shape


@dataclass(frozen=True, slots=True)
class Rows:
    """W′[indices[i]] = value[i]; all other rows are W's.

    Attributes:
        value: shape (n, width).
        indices: n different rows.
        spreads: where this is the input embedding, what the base ties to it has these rows too.
    """

    value: TensorEntry
    indices: tuple[int, ...]
    spreads: bool = True

    @property
    def shape(self) -> None:
        """The file does not say how many rows the parameter has."""
        return


@dataclass(frozen=True, slots=True)
class Computed:
    """W′ − W is what the formula of ``kind`` makes of tensors, options and W.

    Attributes:
        kind: key of the formula in ``rankloom.change.kinds.FORMULAS``.
        tensors: what the formula reads, under the formula's own names.
        options: numbers that the formula needs besides.
        needs_base: W′ − W depends on the values of W, not only on its shape.
        shape: shape of the parameter, if the adapter's headers tell it.
        if_present: where the base has no such parameter (a bias), there is nothing to change; the
            file does not say whether it has one.
        reads: other parameters of the module whose values the formula gets too, each beside its
            tensors as ``base.<parameter>``.
        base: the values of W, where the adapter brings those of the base too and the change
            depends on them; ``needs_base`` is false then.
        rank: r, where the formula is a product of two factors whose headers tell it.
    """

    kind: str
    tensors: Mapping[str, TensorEntry]
    options: Mapping[str, Any] = field(default_factory=dict)
    needs_base: bool = False
    shape: tuple[int, ...] | None = None
    if_present: bool = False
    reads: tuple[str, ...] = ()
    base: TensorEntry | None = None
    rank: int | None = None


Change = LowRank | ExpertLowRank | Replacement | Rows | Computed


def rank_of(change: Change) -> int | None:
    """Return the rank of what is stored as two factors, of one expert where each has its own."""
    return change.rank if isinstance(change, LowRank | ExpertLowRank | Computed) else None


@dataclass(frozen=True, slots=True)
class Target:
    """One parameter that an adapter changes.

    Attributes:
        module: the module's name in the model, without PEFT's prefix.
        kind: how the adapter stores the change (``"lora"``, ``"dora"``, ``"loha"`` …).
        change: the change itself.
        parameter: the module's parameter, nearly always ``weight``; empty where the file does not
            say it (PEFT's ``target_parameters``).
        candidates: then, the names that the config gives, the likeliest first; the base decides.
        fan_in_fan_out: the config says, or leaves open, that some module keeps its weight as
            (in, out), as transformers' ``Conv1D`` does. Most kinds say what is true of the last
            module that PEFT changed.
    """

    module: str
    kind: str
    change: Change
    parameter: str = "weight"
    candidates: tuple[str, ...] = ()
    fan_in_fan_out: bool = False

    @property
    def name(self) -> str:
        """Full name of the changed parameter."""
        parameter = self.parameter or "|".join(self.candidates)
        return f"{self.module}.{parameter}" if self.module else parameter
