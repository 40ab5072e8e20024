"""What a rule says about an adapter: one result, with a stable id."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding weighs; only an ``ERROR`` stops a push, a composition or an apply."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of one rule.

    Attributes:
        rule: stable id, e.g. ``"TEN002"``; never reused for something else.
        message: what is wrong, and which tensor, field or file it is about.
        severity: see :class:`Severity`.
        where: the tensor, config field or file, for machines.
        fix: the next step for the reader.
    """

    rule: str
    message: str
    severity: Severity = Severity.ERROR
    where: str = ""
    fix: str = ""

    def __str__(self) -> str:
        fix = f" ({self.fix})" if self.fix else ""
        return f"{self.rule} {self.message}{fix}"
