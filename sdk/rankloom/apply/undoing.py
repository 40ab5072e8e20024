"""Errors of clean-ups: none may hide what the clean-up is for."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rankloom.errors import RankloomError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def noted_on(cause: BaseException) -> Iterator[None]:
    """Make an error of this block a note of ``cause``, which is raised afterwards."""
    try:
        yield
    except RankloomError as error:
        cause.add_note(f"and what it left could not be removed: {error}")
