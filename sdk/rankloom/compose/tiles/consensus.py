"""How what stays of several deltas becomes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from rankloom.compose.tiles.arguments import option
from rankloom.errors import RefError

if TYPE_CHECKING:
    from typing import TypeAlias

SignElection: TypeAlias = Literal["weighted", "unweighted"]
Vote: TypeAlias = Literal["total", "count"]
DivideBy: TypeAlias = Literal["weights", "count", "none"]


class Merge(Protocol):
    """Makes one of several."""

    def __call__(self, stack: torch.Tensor) -> torch.Tensor:
        """Return the combined elements.

        Args:
            stack: (N, …), float32 or float64; may be overwritten.

        Returns:
            A tensor of the shape of one delta, perhaps in the memory of ``stack``.
        """


# Each step below is one operation that IEEE 754 rounds in one way only, and sums run over the
# adapters in their order, so that neither the processor nor the number of threads shows.


@dataclass(frozen=True, slots=True)
class Total:
    """``scale · Σ wₙ·Δₙ``."""

    weights: tuple[float, ...]
    scale: float = 1.0

    def __call__(self, stack: torch.Tensor) -> torch.Tensor:
        """See :class:`Merge`."""
        total = stack[0].mul_(self.weights[0])
        for values, weight in zip(stack[1:], self.weights[1:], strict=True):
            total.add_(values.mul_(weight))
        return total.mul_(self.scale)


@dataclass(frozen=True, slots=True)
class Consensus:
    """Elect a sign for every element and take the mean of what agrees with it.

    ``scale · Σ wₙ·Δₙ / Σ dₙ`` over those n whose Δₙ[i, j] has the elected sign; 0 where there are
    none. Where the vote is even the sign is plus, as in PEFT and mergekit. A 0 never agrees.

    Attributes:
        weights: one for each delta.
        sign_election: whether the deltas vote with wₙ·Δₙ (mergekit) or with Δₙ (PEFT). With a
            negative weight these differ in who agrees.
        vote: whether their ``total`` decides or the ``count`` of signs (PEFT: frequency).
        divide_by: d is the ``weights`` (mergekit, normalize), 1 (``count``, PEFT), or there is no
            division (``none``; mergekit without normalize).
        scale: what mergekit calls lambda.

    Raises:
        RefError: an option has another value, or a mean by weights has a negative one.
    """

    weights: tuple[float, ...]
    sign_election: SignElection = "weighted"
    vote: Vote = "total"
    divide_by: DivideBy = "weights"
    scale: float = 1.0

    def __post_init__(self) -> None:
        option("sign_election", self.sign_election, ("weighted", "unweighted"))
        option("vote", self.vote, ("total", "count"))
        option("divide_by", self.divide_by, ("weights", "count", "none"))
        if self.divide_by == "weights" and min(self.weights, default=0) < 0:
            message = f"MRG003 weights {self.weights} cannot divide: some are negative"
            raise RefError(message, hint="give divide_by='count', or weights from 0 up")

    def __call__(self, stack: torch.Tensor) -> torch.Tensor:
        """See :class:`Merge`."""
        sign = self._elect(stack)
        total = torch.zeros_like(sign)
        divisor = torch.zeros_like(sign)
        for values, weight in zip(stack, self.weights, strict=True):
            agreeing = values.mul_(sign).clamp_(min=0)
            total.add_(agreeing if self._is_weighted else agreeing * weight)
            if self.divide_by != "none":
                divisor.add_(self._share(agreeing.gt_(0), weight))
        if self.divide_by != "none":
            total.div_(divisor.clamp_(min=self._smallest_share()))
        return total.mul_(sign).mul_(self.scale)

    @property
    def _is_weighted(self) -> bool:
        return self.sign_election == "weighted"

    def _elect(self, stack: torch.Tensor) -> torch.Tensor:
        """Return +1 or −1 for every element, and leave in ``stack`` what voted."""
        votes = torch.zeros_like(stack[0])
        for values, weight in zip(stack, self.weights, strict=True):
            if self._is_weighted:
                values.mul_(weight)
            votes.add_(values.sign() if self.vote == "count" else values)
        return votes.ge_(0).mul_(2).sub_(1)

    def _share(self, agrees: torch.Tensor, weight: float) -> torch.Tensor:
        return agrees.mul_(weight) if self.divide_by == "weights" else agrees

    def _smallest_share(self) -> float:
        """Return what no divisor is below, unless nothing agrees and the sum is 0 too."""
        positive = [weight for weight in self.weights if weight > 0]
        return min(positive, default=1.0) if self.divide_by == "weights" else 1.0
