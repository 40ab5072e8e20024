"""Rows of the corpus of bad inputs: how each is made, what meets it, and what that must say."""

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
class Case:
    """What all rows have.

    Attributes:
        number: its number in the corpus.
        name: what is wrong.
    """

    number: int
    name: str

    @property
    def id(self) -> str:
        """The row's name in reports."""
        return f"{self.number:02}-{self.name.replace(' ', '-')}"


@dataclass(frozen=True)
class Row(Case):
    """A row that a command meets in a folder.

    Attributes:
        make: writes it into a working directory.
        rule: id that must be named; empty: none of severity error may be.
        command: what meets it.
        code: how that must end.
        severity: of the finding, for ``validate``.
        says: what it must say besides.
        then: fails if the working directory is not as it must be afterwards.
        sent: a client that skips its own checks could send it to a registry.
        push: the rule by which a push refuses it if that is another; empty: a push takes it, since
            rankloom treats it exactly where others do not.
    """

    make: Make
    rule: str = ""
    command: tuple[str, ...] = VALIDATE
    code: int = FOUND
    severity: str = "error"
    says: str = ""
    then: Make | None = None
    sent: bool = True
    push: str | None = None

    @property
    def refused(self) -> str:
        """The rule by which a push refuses it; empty: it takes it."""
        if self.push is not None:
            return self.push
        return self.rule if self.severity == "error" else ""


@dataclass(frozen=True)
class Never(Case):
    """A row that cannot occur.

    Attributes:
        reason: why.
    """

    reason: str
