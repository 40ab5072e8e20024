"""Bottom and top layers of one adapter around the middle of another."""

from __future__ import annotations

from rankloom.errors import RefError
from rankloom.recipe.weights import Gradient


def layer_swap(
    language: str, task: str, *, layers: int, bottom: int, top: int, transition: int = 0
) -> dict[str, Gradient]:
    """Return weights under which a task adapter lies between the ends of a language adapter.

    *Layer Swapping for Zero-Shot Cross-Lingual Transfer in Large Language Models*, arXiv
    2410.01335. In the transition the two are averaged; their shares go in equal steps from one to
    the other. What lies in no layer (embeddings, head) goes with the end beside it.

    Args:
        language: label of the adapter whose ends are taken.
        task: label of the adapter whose middle is taken.
        layers: how many layers the base has.
        bottom: how many first layers are the language adapter's alone.
        top: how many last layers are.
        transition: how many layers follow, at each end that is there, in which both take part.

    Returns:
        The weight of each of the two, for every layer; the two add up to 1.

    Raises:
        RefError: one adapter twice, a negative number, or more layers than there are.
    """
    counts = (layers, bottom, top, transition)
    ends = sum(count + transition for count in (bottom, top) if count)
    if language == task or min(counts) < 0 or layers < 1 or ends > layers:
        message = (
            f"MRG003 {layers} layers cannot be {bottom} at the bottom and {top} at the top of "
            f"{language}, with {transition} layers of transition to {task}"
        )
        raise RefError(message, hint="name two adapters, and fewer layers than the base has")
    below = [_share(layer - bottom + 1, transition) if bottom else 0.0 for layer in range(layers)]
    above = [_share(layers - top - layer, transition) if top else 0.0 for layer in range(layers)]
    shares = tuple(max(pair) for pair in zip(below, above, strict=True))
    return {language: Gradient(shares), task: Gradient(tuple(1 - share for share in shares))}


def _share(step: int, transition: int) -> float:
    """Return the language's share ``step`` layers behind its own."""
    return min(1.0, max(0.0, 1 - step / (transition + 1)))
