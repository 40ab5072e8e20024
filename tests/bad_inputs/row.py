"""One bad input: how it is made, which command meets it, and what that must say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[[Path], object]

VALIDATE = ("validate", "./adapter", "--json")
FITTED = ("validate", "./adapter", "--against", "./base", "--json")
PUSH = ("push", "./adapter", "name")
FOUND = 1


@dataclass(frozen=True)
class Row:
    """A row of the corpus.

    Attributes:
        number: its number in the corpus.
        name: what is wrong.
        make: writes it into a working directory.
        rule: id that must be named; empty: none of severity error may be.
        command: what meets it.
        code: how that must end.
        severity: of the finding, for ``validate``.
        says: what it must say besides.
    """

    number: int
    name: str
    make: Make
    rule: str = ""
    command: tuple[str, ...] = VALIDATE
    code: int = FOUND
    severity: str = "error"
    says: str = ""

    @property
    def id(self) -> str:
        """The row's name in reports."""
        return f"{self.number:02}-{self.name}"
