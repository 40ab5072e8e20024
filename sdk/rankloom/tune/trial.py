"""One trial: a base, an adapter alone or a composition, and how well it scored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rankloom.errors import EvaluationError

Kind: TypeAlias = Literal["base", "alone", "composition"]


@dataclass(frozen=True, slots=True)
class Score:
    """What an evaluation gave; higher is better.

    Attributes:
        value: the mean over the examples, or the one number that there is.
        examples: one number for each example; empty: the evaluation gave one number for all.
    """

    value: float
    examples: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """Something that was scored.

    Attributes:
        number: its place among all trials, from 0.
        kind: the base as it is, one adapter alone at weight 1, or a composition.
        weights: numbers in the order of :attr:`rankloom.tune.space.Space.names`.
        score: on the dev set.
        seconds: what it took, the application included.
    """

    number: int
    kind: Kind
    weights: tuple[float, ...]
    score: Score
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the trial as a JSON value, without its examples."""
        return {
            "trial": self.number,
            "kind": self.kind,
            "weights": list(self.weights),
            "score": self.score.value,
            "seconds": round(self.seconds, 3),
        }


def read_score(value: object, what: str) -> Score:
    """Return the score that an evaluation gave.

    Args:
        value: a number, or one for each example: a sequence, an array or a tensor of one axis.
        what: what was evaluated, for messages.

    Raises:
        EvaluationError: it is neither, there are no examples, or a number is NaN or infinite.
    """
    plain = value.tolist() if hasattr(value, "tolist") else value
    try:
        if isinstance(plain, (str, bytes, dict)):
            raise TypeError
        single = isinstance(plain, int | float)
        numbers = tuple(float(one) for one in ([plain] if single else plain))  # type: ignore[union-attr]
    except (TypeError, ValueError):
        message = f"the evaluation of {what} gave {value!r:.80}, which is no score"
        hint = "return a number, or one number for each example"
        raise EvaluationError(message, hint=hint) from None
    if not numbers or not all(map(math.isfinite, numbers)):
        wrong = next((one for one in numbers if not math.isfinite(one)), "no example")
        message = f"the evaluation of {what} gave {wrong}, which is no score"
        hint = "nothing can be compared with it; what was scored before is in the journal"
        raise EvaluationError(message, hint=hint)
    return Score(math.fsum(numbers) / len(numbers), () if single else numbers)
