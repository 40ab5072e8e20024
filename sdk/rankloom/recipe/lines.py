"""Lets a complaint about what a recipe names say where the recipe names it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rankloom.errors import RankloomError

if TYPE_CHECKING:
    from collections.abc import Iterator

_RULE = re.compile(r"[A-Z]+[0-9]{3} ")


@contextmanager
def at_line(line: str) -> Iterator[None]:
    """Let every error of the block name a file and line, behind the id of its rule if it has one.

    Args:
        line: as ``recipe.yaml, line 4``; empty: errors stay as they are.

    Raises:
        RankloomError: what the block raised.
    """
    try:
        yield
    except RankloomError as error:
        error.message = placed(error.message, line)
        error.args = (error.message,)
        raise


def placed(message: str, line: str) -> str:
    """Return a message that names file and line; an empty line: the message itself."""
    if not line:
        return message
    rule = _RULE.match(message)
    start = rule.end() if rule else 0
    return f"{message[:start]}{line}: {message[start:]}"
