"""What callers give, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from keyword import iskeyword
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from rankloom.errors import RefError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sized
    from typing import Any

T = TypeVar("T")
Result = TypeVar("Result")

Densities: TypeAlias = float | Sequence[float]
"""One density for all deltas, or one for each."""


def one_for_each(values: Sequence[T], parts: Sized, what: str) -> tuple[T, ...]:
    """Return values as a tuple, one for each part.

    Raises:
        RefError: there is another number of them.
    """
    if len(values) != len(parts):
        message = f"MRG003 {len(parts)} deltas, but {len(values)} for {what}"
        raise RefError(message, hint="give one for each adapter")
    return tuple(values)


def densities_of(density: Densities, parts: Sized) -> tuple[float, ...]:
    """Return the density of each part.

    Raises:
        RefError: one is not above 0 and at most 1, or there is another number of them.
    """
    several = density if isinstance(density, Sequence) else [density] * len(parts)
    for one in several:
        if not 0 < one <= 1:
            message = f"MRG003 a density of {one!r} keeps no share of the elements"
            raise RefError(message, hint="give a density above 0 and at most 1")
    return one_for_each(several, parts, "density")


def option(name: str, value: object, allowed: Sequence[object]) -> None:
    """Check an option that has a few values.

    Raises:
        RefError: it has another.
    """
    if value not in allowed:
        message = f"MRG003 {name} is {value!r}"
        raise RefError(message, hint=f"it is one of {', '.join(map(str, allowed))}")


def call(
    function: Callable[..., Result], parameters: Mapping[str, Any] | None, *given: object
) -> Result:
    """Call a method with the parameters of a recipe.

    Args:
        function: takes what is given by position, then parameters.
        parameters: under the names of a recipe (``lambda``).
        given: what the caller adds of its own.

    Raises:
        RefError: the method does not take a parameter, or misses one.
    """
    # A recipe's ``lambda`` is no name in Python.
    named = {f"{name}_" if iskeyword(name) else name: v for name, v in (parameters or {}).items()}
    try:
        bound = signature(function).bind(*given, **named)
    except TypeError as reason:
        names = [name.removesuffix("_") for name in signature(function).parameters][len(given) :]
        message = f"MRG003 {function.__name__}: {reason}"
        raise RefError(message, hint=f"it takes {', '.join(names) or 'none'}") from None
    return function(*bound.args, **bound.kwargs)
