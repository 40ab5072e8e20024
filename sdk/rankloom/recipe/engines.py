"""The largest rank that serving engines take."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rankloom.errors import RefError
from rankloom.recipe.methods import hint

_ENGINE = re.compile(r"([a-z.-]+)(==[^,]+)?(?:,max_lora_rank=([0-9]+))?")
_DEFAULTS = {
    "vllm": 16,
    "tensorrt-llm": 64,
    "lorax": 128,
    "sglang": None,
    "tgi": None,
    "llama.cpp": None,
    "ollama": None,
}
"""What engines take if nothing else is set; ``None``: any rank, or that of the first adapters."""

_SET = {"vllm": (1, 8, 16, 32, 64, 128, 256, 320, 512)}
"""Values that ``--max-lora-rank`` can have."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A serving engine, as far as ranks go.

    Attributes:
        text: how it was named.
        max_rank: the largest rank that it takes; ``None``: any.
        advice: what to set for larger ones.
    """

    text: str
    max_rank: int | None
    advice: str = ""


def parse_engine(text: str) -> Engine:
    """Read ``vllm``, ``vllm==0.33`` or ``vllm==0.33,max_lora_rank=64``.

    Raises:
        RefError: no such engine is known, or it cannot be set to this rank.
    """
    found = _ENGINE.fullmatch(text)
    if found is None or found[1] not in _DEFAULTS:
        message = f"MRG003 {text!r} is no engine whose ranks are known"
        raise RefError(message, hint=hint(text.partition("=")[0], _DEFAULTS))
    name, _, given = found.groups()
    values = _SET.get(name)
    if given is None:
        most = "" if values is None else f",max_lora_rank={values[-1]}"
        advice = "" if values is None else f"; started with a larger one, write '{text}{most}'"
        return Engine(text, _DEFAULTS[name], advice)
    rank = int(given)
    if rank < 1 or (values and rank not in values):
        wanted = f"one of {', '.join(map(str, values))}" if values else "a whole number from 1"
        message = f"MRG003 {name} has no max_lora_rank of {rank}"
        raise RefError(message, hint=f"it is {wanted}")
    return Engine(text, rank)
