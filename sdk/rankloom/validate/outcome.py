"""What a run over several adapters came to: judged reports by name, and the exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.validate.policy import Policy
    from rankloom.validate.report import Report


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one run.

    Attributes:
        reports: judged report of each adapter by the name under which it was asked for.
        policy: what counted, and what fails.
    """

    reports: Mapping[str, Report]
    policy: Policy

    @classmethod
    def of(cls, reports: Mapping[str, Report], policy: Policy) -> Outcome:
        """Judge reports."""
        return cls({name: policy.judge(name, found) for name, found in reports.items()}, policy)

    @property
    def exit_code(self) -> int:
        """0 clean, 1 something fails, 3 something that was asked for could not be checked."""
        return self.policy.exit_code(self.reports.values())

    def verdict(self, name: str) -> str:
        """Return ``"ok"``, ``"refused"`` or ``"open"`` (not all could be checked) for one."""
        return ("ok", "refused", "", "open")[self.policy.exit_code([self.reports[name]])]
