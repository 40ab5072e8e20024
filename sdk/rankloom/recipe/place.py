"""Layer and module in the name of a target."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Where a target lies in a model.

    Attributes:
        stack: the list of layers, e.g. ``model.layers``; empty: outside of any.
        layer: its number in the list, or ``None``.
        module: the rest of the name, numbers (experts) replaced by ``*``.
    """

    stack: str
    layer: int | None
    module: str


def place_of(name: str) -> Place:
    """Return where a target lies: the first number in its name is that of its layer.

    ``model.layers.3.self_attn.q_proj.weight`` is ``("model.layers", 3, "self_attn.q_proj")``.
    """
    words = name.removesuffix(".weight").split(".")
    at = next((i for i, word in enumerate(words) if word.isdecimal()), None)
    if at is None:
        return Place("", None, ".".join(words))
    rest = ("*" if word.isdecimal() else word for word in words[at + 1 :])
    return Place(".".join(words[:at]), int(words[at]), ".".join(rest))
