"""What a validation found, what it checked, and what it could not check."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rankloom.adapter.config_reader import raise_for, summary
from rankloom.errors import IncompatibleError
from rankloom.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rankloom.fingerprint import Level
    from rankloom.validate.engines import Judgement

FITTING = frozenset(["BASE001", "BASE002", "BASE003", "BASE004", "BASE005", "BASE006", "TEN005"])
"""Rules about adapter and base together: either may be sound by itself."""

BY_OTHERS = frozenset(["BASE001", "BASE004", "BASE005", "CFG008", "CFG010", "SEC005", "TEN007"])
"""Rules about what rankloom treats exactly, but others may not: no push stops at them.

CFG008 is refused there as what it is, other bytes than the record's.
What of CFG010 and TEN007 rankloom cannot treat, either, its reader refuses before.
"""


ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
"""In which order findings stand in a report."""


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a validation.

    Attributes:
        subject: the adapter's folder, for messages.
        findings: what was found, errors first.
        checked: ids of the rules that were checked.
        not_checked: ids of the rules that were not, each with the reason.
        level: the level at which the base's fingerprint is the recorded one, if both are known.
        blocked: ids of ``not_checked`` that were asked for, so that the verdict is open.
        suppressed: what was found, but is not to count; each with the reason.
        engines: what each engine that was asked for does with the adapter.
    """

    subject: str
    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    not_checked: Mapping[str, str] = field(default_factory=dict)
    level: Level | None = None
    blocked: frozenset[str] = frozenset()
    suppressed: tuple[tuple[Finding, str], ...] = ()
    engines: tuple[Judgement, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings of severity error."""
        return self.of(Severity.ERROR)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of one severity."""
        return tuple(found for found in self.findings if found.severity is severity)

    def checked_too(self, rule: str, findings: Iterable[Finding]) -> Report:
        """Return this report after one rule more was checked."""
        found = sorted((*self.findings, *findings), key=lambda found: ORDER[found.severity])
        return replace(
            self,
            findings=tuple(found),
            checked=(*self.checked, rule),
            not_checked={key: why for key, why in self.not_checked.items() if key != rule},
            blocked=self.blocked - {rule},
        )

    def not_checked_for(self, reason: str, *rules: str, asked: bool = False) -> Report:
        """Return this report with another reason why rules were not checked.

        Args:
            reason: the reason.
            rules: the rules.
            asked: they were asked for, so that the verdict is open.
        """
        unchecked = {**self.not_checked, **dict.fromkeys(rules, reason)}
        blocked = self.blocked | set(rules) if asked else self.blocked
        return replace(self, not_checked=unchecked, blocked=blocked)

    def raise_for_errors(self) -> None:
        """Raise one error that carries all findings, if any is an error that must stop a push.

        Raises:
            AdapterError: the adapter is broken.
            UnsupportedAdapterError: it is sound, but of a kind that rankloom does not read.
            IncompatibleError: it is sound, but does not fit the base, or an engine.
        """
        errors = [found for found in self.errors if found.rule not in BY_OTHERS]
        if not errors:
            return
        if all(found.rule in FITTING or found.rule.startswith("ENG") for found in errors):
            words = summary(errors, len(errors), self.subject)
            raise IncompatibleError(**words, findings=self.findings)
        raise_for(self.findings, self.subject)
