"""Every method of this package by its name."""

from __future__ import annotations

from inspect import signature
from keyword import iskeyword
from typing import TYPE_CHECKING

from rankloom.compose.factors.gram import gram
from rankloom.compose.factors.karcher import karcher
from rankloom.compose.factors.linear import exact, linear, task_arithmetic
from rankloom.compose.factors.model_stock import model_stock
from rankloom.compose.factors.norm_balanced import norm_balanced
from rankloom.compose.factors.slerp import multislerp, nuslerp, slerp
from rankloom.compose.factors.value import Factors, check_finite, join
from rankloom.errors import RefError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    import torch

METHODS: Mapping[str, Callable[..., torch.Tensor]] = {
    "exact": exact,
    "karcher": karcher,
    "linear": linear,
    "model_stock": model_stock,
    "multislerp": multislerp,
    "norm_balanced": norm_balanced,
    "nuslerp": nuslerp,
    "slerp": slerp,
    "task_arithmetic": task_arithmetic,
}
"""name → function (gram, weights, **parameters) → coefficients."""


def coefficients(
    method: str,
    products: torch.Tensor,
    weights: Sequence[float],
    parameters: Mapping[str, Any] | None = None,
) -> torch.Tensor:
    """Return the c with which a method is Σ cₜ·Δₜ.

    Args:
        method: a key of :data:`METHODS`.
        products: the deltas' inner products, (N, N).
        weights: one for each delta.
        parameters: what the method takes besides, under the names of a recipe (``lambda``).

    Returns:
        (N,), float64.

    Raises:
        RefError: there is no such method, it does not take a parameter or misses one, or the
            weights do not suit it.
        IncompatibleError: the method is not defined for these deltas.
    """
    function = METHODS.get(method)
    if function is None:
        message = f"there is no method {method!r} of factors"
        raise RefError(message, hint=f"known methods: {', '.join(METHODS)}")
    # A recipe's ``lambda`` is no name in Python.
    named = {f"{name}_" if iskeyword(name) else name: v for name, v in (parameters or {}).items()}
    try:
        bound = signature(function).bind(products, weights, **named)
    except TypeError as reason:
        message = f"MRG003 parameters of {method}: {reason}"
        raise RefError(message, hint=f"it takes {_parameters(function)}") from None
    return function(*bound.args, **bound.kwargs)


def _parameters(function: Callable[..., torch.Tensor]) -> str:
    names = [name.removesuffix("_") for name in signature(function).parameters]
    return ", ".join(names[2:]) or "none"


def combine(
    method: str,
    parts: Sequence[Factors],
    weights: Sequence[float],
    parameters: Mapping[str, Any] | None = None,
) -> Factors:
    """Return what a method makes of one target, as factors of rank Σr, float64.

    Args:
        method: a key of :data:`METHODS`.
        parts: at least one, of one shape. An adapter that leaves the target alone is there as
            factors of rank 0, where it matters that it is one of N.
        weights: one for each part.
        parameters: see :func:`coefficients`.

    Raises:
        RefError: see :func:`coefficients`.
        IncompatibleError: the shapes differ, or the method is not defined for these deltas.
        AdapterError: a factor holds NaN or infinity, or overflows with its coefficient.
    """
    found = coefficients(method, gram(parts), weights, parameters)
    check_finite(found, parts[0].shape)
    return join(parts, found.tolist())
