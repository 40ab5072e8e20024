"""What a rule is: a stable id, its weight, and why it exists."""

from __future__ import annotations

from dataclasses import dataclass

from rankloom import __version__
from rankloom.finding import Finding, Severity

_PAGES = f"https://github.com/rankloom/rankloom/blob/v{__version__}/docs/rules"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        id: stable id; never reused for something else.
        severity: weight of its findings, unless a finding says otherwise.
        title: what it demands, in a few words.
        why: what happens otherwise.
        fix: the next step for whoever breaks it.
        evidence: what other software was seen to do with such an adapter; may be empty.
        since: the version of rankloom that first had the rule.
        option: the option of ``loractl validate`` without which it is not checked; may be empty.
    """

    id: str
    severity: Severity
    title: str
    why: str
    fix: str
    evidence: str = ""
    since: str = "0.1.0"
    option: str = ""

    @property
    def family(self) -> str:
        """The letters of the id: FMT, CFG, TEN, BASE, NUM, PRB, SEC, ENG."""
        return self.id.rstrip("0123456789")

    @property
    def page(self) -> str:
        """Address of its page, as of this version."""
        return f"{_PAGES}/{self.id}.md"

    def finding(self, message: str, *, where: str = "", fix: str = "") -> Finding:
        """Return a finding of this rule."""
        return Finding(self.id, message, self.severity, where, fix or self.fix)
