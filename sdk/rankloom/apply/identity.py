"""Is this the base that the adapters were made for?"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from rankloom.errors import IncompatibleError, RankloomWarning
from rankloom.fingerprint import Level
from rankloom.recipe.checks import difference

if TYPE_CHECKING:
    from rankloom.fingerprint import Fingerprint


def check_identity(expected: Fingerprint | None, found: Fingerprint | None, base: str) -> None:
    """Refuse another base than the one that was recorded; warn where nothing can be compared.

    Args:
        expected: what the composition knows of its base.
        found: identity of the base at hand; ``None``: it could not be computed.
        base: how messages name the base.

    Raises:
        IncompatibleError: the two are known to differ.
    """
    if expected is None:
        _warn(f"identity of {base} not checked: no adapter records the base it was made for")
    elif found is None:
        _warn(f"identity of {base} not checked: its values cannot be compared with the record")
    elif (level := expected.match(found)) is None:
        message = f"BASE003 {base} is not the base that the adapters were made for"
        message += f": {difference(expected, found)}"
        raise IncompatibleError(message, hint="apply to the base that they were trained on")
    elif level is Level.STRUCT:
        _warn(f"identity of {base} checked by names and shapes only: no values are recorded")


def _warn(message: str) -> None:
    warnings.warn(RankloomWarning(f"BASE001 {message}"), stacklevel=4)
