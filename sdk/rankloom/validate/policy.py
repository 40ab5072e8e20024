"""Which findings count: rules that were chosen or left out, known findings, and what fails."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from rankloom.errors import RefError
from rankloom.finding import Finding, Severity
from rankloom.fingerprint import Level
from rankloom.validate.identity import identity
from rankloom.validate.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rankloom.validate.report import Report

CLEAN, FOUND, OPEN = 0, 1, 3
"""What ``loractl validate`` ends with; 2 is wrong usage."""

_WEIGHTS = (Severity.INFO, Severity.WARNING, Severity.ERROR)
_STRENGTHS = (Level.DERIVED, Level.SUBSET, Level.STRUCT, Level.BF16, Level.EXACT)


@dataclass(frozen=True, slots=True)
class Policy:
    """What of a report counts.

    Attributes:
        select: ids of rules or their beginnings, e.g. ``"TEN"``; only these count, and all of
            them must be checked. Empty: all count that could be checked.
        ignore: ids or their beginnings that do not count.
        ignore_in: more of these by pattern of the adapter's name (as in a shell).
        baseline: identities of findings that are known and do not count.
        fail_on: the least severity that fails.
        level: the weakest level at which the base must be the recorded one, if it is asked for.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    ignore_in: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    baseline: frozenset[str] = frozenset()
    fail_on: Severity = Severity.ERROR
    level: Level | None = None

    def __post_init__(self) -> None:
        chosen = [*self.select, *self.ignore, *(r for rs in self.ignore_in.values() for r in rs)]
        for prefix in chosen:
            if not any(rule.startswith(prefix) for rule in RULES) or not prefix:
                message = f"no rule is named, or begins with, {prefix!r}"
                raise RefError(message, hint="'loractl rule' lists them all")

    def judge(self, name: str, report: Report) -> Report:
        """Return a report with only what counts; the rest is in ``suppressed``.

        Args:
            name: what the adapter is called, for patterns and baselines.
            report: the whole report.
        """
        reasons = [(found, self._dropped(name, found, report)) for found in report.findings]
        kept = tuple(found for found, reason in reasons if not reason)
        weaker = self._weaker(report, kept)
        unchecked = {**report.not_checked, **weaker}
        return replace(
            report,
            findings=kept,
            suppressed=tuple((found, reason) for found, reason in reasons if reason),
            checked=tuple(r for r in report.checked if self._counts(r) and r not in weaker),
            not_checked={rule: why for rule, why in unchecked.items() if self._counts(rule)},
            blocked=frozenset(
                rule
                for rule in unchecked
                if self._counts(rule)
                and (rule.startswith(self.select) or rule in report.blocked or rule in weaker)
            ),
        )

    def exit_code(self, reports: Iterable[Report]) -> int:
        """Return the exit code for judged reports: found, else open, else clean."""
        judged = list(reports)
        if any(self.fails(found) for report in judged for found in report.findings):
            return FOUND
        return OPEN if any(report.blocked for report in judged) else CLEAN

    def fails(self, finding: Finding) -> bool:
        """Say whether a finding weighs enough to fail."""
        return _WEIGHTS.index(finding.severity) >= _WEIGHTS.index(self.fail_on)

    def _counts(self, rule: str) -> bool:
        chosen = not self.select or rule.startswith(self.select)
        return chosen and not rule.startswith(self.ignore)

    def _dropped(self, name: str, finding: Finding, report: Report) -> str:
        """Return why a finding does not count; empty if it does."""
        if not self._counts(finding.rule):
            return "not selected" if not finding.rule.startswith(self.ignore) else "ignored"
        for pattern, rules in self.ignore_in.items():
            if fnmatchcase(name, pattern) and finding.rule.startswith(rules):
                return f"ignored in {pattern}"
        key = identity(name, finding, report.subject)
        return "in the baseline" if key in self.baseline else ""

    def _weaker(self, report: Report, kept: tuple[Finding, ...]) -> dict[str, str]:
        """Return BASE003 with a reason if the base is known less well than was asked for."""
        wrong = any(f.rule == "BASE003" and f.severity is Severity.ERROR for f in kept)
        if self.level is None or wrong:
            return {}
        if report.level is None:
            reason = report.not_checked.get("BASE003", "no fingerprint was compared")
            return {"BASE003": f"{reason}; level {self.level} was asked for"}
        if _STRENGTHS.index(report.level) >= _STRENGTHS.index(self.level):
            return {}
        return {"BASE003": f"the base agrees at level {report.level}, not at {self.level}"}
