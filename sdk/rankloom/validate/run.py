"""Runs the rules that can be run with what is at hand, and says which could not be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rankloom.adapter import reader
from rankloom.finding import Finding, Severity
from rankloom.fingerprint import Fingerprint, Level
from rankloom.validate import content, fit
from rankloom.validate.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rankloom.adapter.reader import Adapter
    from rankloom.base.model import Base

FILES = (
    *(f"FMT{number:03}" for number in range(1, 17)),
    *("CFG001", "CFG002", "CFG003", "CFG004", "CFG005", "CFG007", "CFG009", "CFG010", "CFG011"),
    *("CFG012", "TEN001", "TEN002", "TEN003", "TEN004", "TEN007", "TEN009"),
    *("SEC001", "SEC002", "SEC003", "SEC004", "SEC010"),
)
"""Rules that the readers check."""

_Content = dict[str, "Callable[[Adapter], Iterable[Finding]]"]
HEADERS: _Content = {
    "CFG006": content.target_modules,
    "TEN006": content.missing_layers,
    "TEN008": content.one_dtype,
}
VALUES: _Content = {"NUM001": content.finite, "NUM003": content.not_zero}
FIT = ("TEN005", "BASE002", "BASE004", "BASE006")
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


class _Run:
    """Collects findings and what was checked."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.checked: list[str] = []
        self.not_checked: dict[str, str] = {}
        self.level: Level | None = None

    def check(self, rule: str, findings: Iterable[Finding]) -> None:
        """Note that a rule was checked, and what it found."""
        self.findings += findings
        self.checked.append(rule)

    def skip(self, rules: Iterable[str], reason: str) -> None:
        """Note that rules were not checked."""
        self.not_checked |= dict.fromkeys(rules, reason)

    def report(self, subject: Path) -> Report:
        """Return the report, errors first."""
        self.findings.sort(key=lambda found: _ORDER[found.severity])
        checked = tuple(self.checked)
        return Report(str(subject), tuple(self.findings), checked, self.not_checked, self.level)


def validate(
    adapter: Adapter | Path,
    base: Base | None = None,
    *,
    expected: Fingerprint | None = None,
    found: Fingerprint | None = None,
    headers_only: bool = False,
) -> Report:
    """Check an adapter, and how it fits a base.

    Args:
        adapter: an adapter, or its folder; what is wrong with the folder is in the report.
        base: the base that it shall fit.
        expected: fingerprint of the base that it was made for; ``None``: what its record says.
        found: fingerprint of ``base``.
        headers_only: do not read the adapter's values; the report says so.

    Raises:
        NotFoundError: there is no such folder.
    """
    run = _Run()
    run.checked += FILES
    if isinstance(adapter, Path):
        inspection = reader.inspect(adapter)
        run.findings += inspection.findings
        if inspection.adapter is None:
            rest = (*HEADERS, *VALUES, *FIT, "BASE001", "BASE003")
            run.skip(rest, "the adapter could not be read")
            return run.report(adapter)
        adapter = inspection.adapter
    else:
        run.findings += adapter.findings
    run.findings += content.imported(adapter)
    _content(run, adapter, headers_only=headers_only)
    _fit(run, adapter, base)
    run.check("BASE001", content.base_named(adapter) if not (expected or found) else ())
    _identity(run, expected or adapter.base, found)
    return run.report(adapter.path)


def _content(run: _Run, adapter: Adapter, *, headers_only: bool) -> None:
    for rule, check in HEADERS.items():
        run.check(rule, check(adapter))
    if adapter.config.target_rule() is None:
        run.checked.remove("CFG006")
        run.skip(["CFG006"], "target_modules names no modules that can be compared")
    if headers_only:
        run.skip(VALUES, "headers only")
        return
    for rule, check in VALUES.items():
        run.check(rule, check(adapter))


def _fit(run: _Run, adapter: Adapter, base: Base | None) -> None:
    if base is None:
        run.skip(FIT, "no base was given")
        return
    placed, lost = fit.place(adapter, base)
    run.check("TEN005", lost)
    run.check("BASE002", fit.shapes(placed))
    run.check("BASE004", fit.tied(placed, base))
    run.check("BASE006", fit.quantised(placed))


def _identity(run: _Run, expected: Fingerprint | None, found: Fingerprint | None) -> None:
    if expected is None or found is None:
        lacks = "is recorded" if expected is None else "of the base was given"
        run.skip(["BASE003"], f"no fingerprint {lacks}")
        return
    run.level = expected.match(found)
    if run.level is Level.STRUCT:
        run.skip(["BASE003"], "names and shapes agree, but values were not fingerprinted")
        return
    run.check("BASE003", fit.same_base(expected, found))
