"""The tokens that a probe asks with: the same ones for the same model and adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.adapter.change import Rows
from rankloom.errors import BackendUnavailableError
from rankloom.probe.answer import LEAVE_OUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.adapter.reader import Adapter

COUNT = 16
_TRAINED = 4
"""How many tokens may be ones that the adapter trained."""
_START, _STEP = 11, 7919
"""A prime step spreads the tokens over a vocabulary of any size."""


def choose(config: Any, adapter: Adapter) -> tuple[int, ...]:  # noqa: ANN401 - transformers' config
    """Return the tokens to ask with: those that were trained first, then ones that mean nothing.

    An adapter of trained tokens alone changes no answer to others.

    Args:
        config: of the live model.
        adapter: the adapter.

    Raises:
        BackendUnavailableError: the config does not say how many tokens there are.
    """
    text = config.get_text_config()
    size = getattr(text, "vocab_size", None)
    if not isinstance(size, int) or size < 1:
        message = f"a probe asks with tokens, and a {type(text).__name__} has no vocab_size"
        raise BackendUnavailableError(message, hint=LEAVE_OUT)
    special = set(_special(config)) | set(_special(text))
    longest = getattr(text, "max_position_embeddings", None) or COUNT
    spread = ((_START + _STEP * number) % size for number in range(COUNT + _TRAINED + len(special)))
    plain = [token for token in spread if token not in special]
    # The order of a dict keeps what comes first, once.
    wanted = dict.fromkeys([*_trained(adapter, size)[:_TRAINED], *plain])
    return tuple(wanted)[: min(COUNT, longest)]


def _special(config: Any) -> Iterator[int]:  # noqa: ANN401 - transformers' config
    """Yield padding, begin, end, and what stands for pictures and sounds."""
    for name, value in config.to_dict().items():
        if name.endswith(("_token_id", "_token_index")):
            yield from value if isinstance(value, list) else () if value is None else (value,)


def _trained(adapter: Adapter, size: int) -> list[int]:
    changes = [target.change for target in adapter.targets]
    rows = [change.indices for change in changes if isinstance(change, Rows)]
    return [index for indices in rows for index in indices if index < size]
