"""The report for people: by adapter and severity, each finding with its fix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rankloom.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.finding import Finding
    from rankloom.validate import Report
    from rankloom.validate.outcome import Outcome

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "blue"}
_VERDICTS_OF_ENGINES = {"accept": "green", "degraded": "yellow", "unknown": "yellow"}
_VERDICTS = {"ok": "green", "refused": "red", "open": "yellow"}


def render(outcome: Outcome) -> str:
    """Return the report, coloured; click strips the colours where no terminal is."""
    lines = [line for name in outcome.reports for line in _adapter(name, outcome)]
    if len(outcome.reports) > 1:
        lines.append(_total(outcome))
    return "\n".join(lines) + "\n"


def _adapter(name: str, outcome: Outcome) -> Iterator[str]:
    report = outcome.reports[name]
    verdict = outcome.verdict(name)
    painted = click.style(verdict, fg=_VERDICTS[verdict], bold=True)
    yield f"{click.style(name, bold=True)}: {painted} ({', '.join(_facts(report))})"
    yield from _engines(report)
    for severity in Severity:
        yield from _group(severity, report.of(severity))
    for reason, rules in _by_reason(_told(report)).items():
        asked = report.blocked.intersection(rules)
        paint = {"fg": "yellow"} if asked else {"dim": True}
        yield click.style(f"  not checked: {_rules(rules)} ({reason})", **paint)
    if report.suppressed:
        yield click.style(f"  not counted: {_suppressed(report)}", dim=True)


def _engines(report: Report) -> Iterator[str]:
    for judged in report.engines:
        colour = _VERDICTS_OF_ENGINES.get(judged.verdict, "red")
        painted = click.style(judged.verdict, fg=colour)
        yield f"  {judged.name}: {painted}{f' ({judged.open})' if judged.open else ''}"


def _facts(report: Report) -> Iterator[str]:
    for severity in (Severity.ERROR, Severity.WARNING):
        if count := len(report.of(severity)):
            yield f"{count} {severity}{'s' if count > 1 else ''}"
    yield f"{len(report.checked)} rules checked"
    if report.level:
        yield f"base {report.level}"


def _group(severity: Severity, findings: tuple[Finding, ...]) -> Iterator[str]:
    for found in findings:
        label = click.style(str(severity), fg=_COLOURS[severity])
        yield f"  {label}: {click.style(found.rule, bold=True)} {found.message}"
        if found.fix:
            yield f"    {click.style('fix:', fg='cyan')} {found.fix}"


def _told(report: Report) -> Mapping[str, str]:
    """Leave out the rules of an option that was not given: nobody misses them."""
    from rankloom.validate import RULES

    given = {"", *(RULES[rule].option for rule in (*report.checked, *report.blocked))}
    return {
        rule: reason for rule, reason in report.not_checked.items() if RULES[rule].option in given
    }


def _by_reason(not_checked: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for rule, reason in not_checked.items():
        groups.setdefault(reason, []).append(rule)
    return groups


def _rules(rules: list[str]) -> str:
    return ", ".join(rules) if len(rules) <= 12 else f"{len(rules)} rules"


def _suppressed(report: Report) -> str:
    return ", ".join(f"{found.rule} ({reason})" for found, reason in report.suppressed)


def _total(outcome: Outcome) -> str:
    counts = dict.fromkeys(_VERDICTS, 0)
    for name in outcome.reports:
        counts[outcome.verdict(name)] += 1
    said = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    return f"{len(outcome.reports)} adapters: {', '.join(said)}"
