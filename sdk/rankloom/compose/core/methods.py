"""Spaces and rules by name."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rankloom.compose.core.ctm import compress_then_merge
from rankloom.compose.core.knots import merge_knots
from rankloom.compose.core.pico import with_pico
from rankloom.compose.core.rules import Dare, IsoC, TaskArithmetic, Ties, Tsv
from rankloom.compose.core.space import merge_in_core
from rankloom.compose.tiles.arguments import call
from rankloom.errors import RefError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    from rankloom.compose.core.rules import Rule
    from rankloom.compose.factors.value import Factors

    Known = TypeVar("Known")

SPACES: Mapping[str, Callable[..., Factors]] = {
    "core": merge_in_core,
    "ctm": compress_then_merge,
    "knots": merge_knots,
}
"""name → function (parts, weights, rule, **parameters) → factors."""

RULES: Mapping[str, Callable[..., Rule]] = {
    "dare": Dare,
    "iso_c": IsoC,
    "task_arithmetic": TaskArithmetic,
    "ties": Ties,
    "tsv": Tsv,
}
"""name → function (**parameters) → rule."""


def combine(
    space: str,
    rule: str,
    parts: Sequence[Factors],
    weights: Sequence[float],
    *,
    rule_parameters: Mapping[str, Any] | None = None,
    space_parameters: Mapping[str, Any] | None = None,
    pico: bool = False,
) -> Factors:
    """Return what a rule makes of one target in a space, as factors of at most Σr columns.

    Args:
        space: a key of :data:`SPACES`.
        rule: a key of :data:`RULES`.
        parts: at least one, of one shape; ranks may differ.
        weights: one for each part.
        rule_parameters: of the rule, under the names of a recipe (``lambda``).
        space_parameters: of the space.
        pico: whether Pico goes first.

    Raises:
        RefError: there is no such space or rule, it does not take a parameter or misses one, or a
            value cannot be.
        IncompatibleError: no parts, or their shapes differ.
        AdapterError: a factor holds NaN or infinity.
    """
    chosen = call(_named(RULES, rule, "rule"), rule_parameters)
    merge = partial(call, _named(SPACES, space, "space"), space_parameters)
    if not pico:
        return merge(parts, weights, chosen)
    return with_pico(parts, lambda calmed: merge(calmed, weights, chosen))


def _named(known: Mapping[str, Known], name: str, what: str) -> Known:
    if name not in known:
        message = f"there is no {what} {name!r}"
        raise RefError(message, hint=f"known: {', '.join(known)}")
    return known[name]
