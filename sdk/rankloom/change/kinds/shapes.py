"""The one check that formulas make before they compute: does the base have the shape they need."""

from __future__ import annotations

from rankloom.errors import IncompatibleError


def require(fits: bool, what: str) -> None:
    """Refuse a base whose shape a change cannot have been made for.

    Args:
        fits: whether it fits.
        what: what does not, with the shapes.

    Raises:
        IncompatibleError: it does not.
    """
    if not fits:
        message = f"BASE002 {what}"
        raise IncompatibleError(message, hint="give the base that the adapter was trained on")
