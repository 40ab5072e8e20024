"""What is wrong with a file, before it is known whether the file is an adapter's or a base's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.finding import Finding, Severity

if TYPE_CHECKING:
    from pathlib import Path


class Defect(Exception):  # noqa: N818 - it never leaves the package; its reader sees the finding
    """One broken rule of the container format.

    Attributes:
        rule: id of the rule.
        message: what is wrong, without the file's name.
        fix: the next step, may be empty.
    """

    def __init__(self, rule: str, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message
        self.fix = fix

    def finding(self, path: Path) -> Finding:
        """Return the defect as an error about ``path``."""
        return Finding(self.rule, f"{path}: {self.message}", where=path.name, fix=self.fix)

    def warning(self, path: Path) -> Finding:
        """Return the defect as a warning about ``path``."""
        message = f"{path}: {self.message}"
        return Finding(self.rule, message, Severity.WARNING, where=path.name, fix=self.fix)
