"""What a live model answers to some tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from rankloom.errors import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

What = Literal["logits", "last hidden state"]
_FIELDS: tuple[tuple[What, str], ...] = (
    ("logits", "logits"),
    ("last hidden state", "last_hidden_state"),
)
LEAVE_OUT = "leave out the probe for this base"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    Attributes:
        what: logits; of a model without a head, the last hidden state.
        values: float32, of all positions: (tokens, width), or (1, width) where the model gives
            one answer for all of them.
    """

    what: What
    values: torch.Tensor

    @property
    def is_finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        return bool(self.values.isfinite().all())

    @property
    def norm(self) -> float:
        """Frobenius norm of all values."""
        return float(self.values.double().norm())

    def at(self, ids: Sequence[int]) -> list[float]:
        """Return values of the last position."""
        last: torch.Tensor = self.values[-1]
        return [float(last[number]) for number in ids]

    def top(self, count: int) -> list[int]:
        """Return where the last position has its largest logits; of states, the largest sizes."""
        last = self.values[-1] if self.what == "logits" else self.values[-1].abs()
        return [int(number) for number in last.topk(min(count, len(last))).indices]


def check_takes_tokens(model: Any) -> None:  # noqa: ANN401 - a transformers model
    """Refuse a model of pictures or sounds.

    Raises:
        BackendUnavailableError: it is one.
    """
    if model.main_input_name != "input_ids":
        message = (
            f"a probe asks with tokens, and {type(model).__name__} takes {model.main_input_name}"
        )
        raise BackendUnavailableError(message, hint=LEAVE_OUT)


def ask(model: Any, tokens: Sequence[int]) -> Answer:  # noqa: ANN401 - a transformers model
    """Run a model once.

    Raises:
        BackendUnavailableError: it gives no answer that can be compared.
    """
    ids = torch.tensor([tokens])
    # An encoder and decoder is asked to go on from the same tokens.
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    try:
        with torch.no_grad():
            found = model(input_ids=ids, **more)
    except Exception as error:  # what a model that wants more than tokens ends with is its own
        message = f"{type(model).__name__} does not answer to tokens alone: {error}"
        raise BackendUnavailableError(message, hint=LEAVE_OUT) from error
    for what, field in _FIELDS:
        values = getattr(found, field, None)
        if isinstance(values, torch.Tensor):
            return Answer(what, values.float().reshape(-1, values.shape[-1]))
    message = f"{type(model).__name__} answers with neither logits nor hidden states"
    raise BackendUnavailableError(message, hint=LEAVE_OUT)
