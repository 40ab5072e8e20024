"""Every method of this package by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.compose.tiles.arguments import call
from rankloom.compose.tiles.dropped import dare_linear, dare_ties, della, della_linear
from rankloom.compose.tiles.sce import sce
from rankloom.compose.tiles.trimmed import breadcrumbs, breadcrumbs_ties, magnitude_prune, ties
from rankloom.errors import RefError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from rankloom.compose.factors.value import Factors
    from rankloom.compose.tiles.elementwise import Elementwise

METHODS: Mapping[str, Callable[..., Elementwise]] = {
    "breadcrumbs": breadcrumbs,
    "breadcrumbs_ties": breadcrumbs_ties,
    "dare_linear": dare_linear,
    "dare_ties": dare_ties,
    "della": della,
    "della_linear": della_linear,
    "magnitude_prune": magnitude_prune,
    "sce": sce,
    "ties": ties,
}
"""name → function (parts, weights, **parameters) → what has rows."""

RANDOM = frozenset({"dare_linear", "dare_ties", "della", "della_linear"})
"""Those that take ``keys``, and whose locks need seed and scheme."""


def combine(
    method: str,
    parts: Sequence[Factors],
    weights: Sequence[float],
    parameters: Mapping[str, Any] | None = None,
) -> Elementwise:
    """Return what a method makes of one target, by rows.

    Args:
        method: a key of :data:`METHODS`.
        parts: at least one, of one shape.
        weights: one for each part.
        parameters: what the method takes besides, under the names of a recipe (``lambda``), and
            ``keys`` for those in :data:`RANDOM`.

    Raises:
        RefError: there is no such method, it does not take a parameter or misses one, or a value
            cannot be.
        IncompatibleError: the shapes differ, or the method is not defined for these deltas.
        AdapterError: a factor holds NaN or infinity, or elements may overflow.
    """
    function = METHODS.get(method)
    if function is None:
        message = f"there is no method {method!r} of elements"
        raise RefError(message, hint=f"known methods: {', '.join(METHODS)}")
    return call(function, parameters, parts, weights)
