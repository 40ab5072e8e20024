"""The report as GitHub Actions reads it: workflow commands, and the summary of the step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rankloom.finding import Severity
from rankloom.validate.location import Locator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.validate.outcome import Outcome
    from rankloom.validate.report import Report

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
_SIGNS = {"ok": "✅", "refused": "❌", "open": "❓"}
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A", ":": "%3A", ",": "%2C"})
_CELL = str.maketrans({"|": "\\|", "\r": " ", "\n": " ", "<": "&lt;", "`": "'"})


def render(outcome: Outcome) -> str:
    """Return the annotations, one command a line."""
    lines = [
        line for name, report in outcome.reports.items() for line in _annotations(name, report)
    ]
    return "".join(f"{line}\n" for line in lines)


def _annotations(name: str, report: Report) -> Iterator[str]:
    locator = Locator(Path(report.subject), name)
    for found in report.findings:
        location = locator.locate(found)
        fix = f"\nfix: {found.fix}" if found.fix else ""
        message = f"{name}: {found.message}{fix}"
        line = location.line
        yield _command(_COMMANDS[found.severity], found.rule, message, location.uri, line)
    for reason, rules in asked_in_vain(report).items():
        message = f"{name}: {', '.join(rules)} could not be checked: {reason}"
        yield _command("error", "not checked", message)


def asked_in_vain(report: Report) -> dict[str, list[str]]:
    """Return the rules that were asked for and could not be checked, by reason."""
    groups: dict[str, list[str]] = {}
    for rule, reason in report.not_checked.items():
        if rule in report.blocked:
            groups.setdefault(reason, []).append(rule)
    return groups


def _command(kind: str, title: str, message: str, file: str = "", line: int | None = None) -> str:
    properties = {"file": file, "line": line, "title": title}
    given = ",".join(
        f"{key}={str(value).translate(_PROPERTY)}" for key, value in properties.items() if value
    )
    return f"::{kind} {given}::{message.translate(_DATA)}"


def summary(outcome: Outcome) -> str:
    """Return the Markdown that goes to ``$GITHUB_STEP_SUMMARY``."""
    lines = ["### loractl validate", "", "| adapter | verdict | rule | finding | fix |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, report in outcome.reports.items():
        verdict = outcome.verdict(name)
        first = f"{_cell(name)} | {_SIGNS[verdict]} {verdict}"
        rows = [(f.rule, f.message, f.fix) for f in report.findings]
        rows += [
            (", ".join(rules), f"not checked: {reason}", "")
            for reason, rules in asked_in_vain(report).items()
        ]
        rows = rows or [("", f"{len(report.checked)} rules checked", "")]
        lines += [f"| {first} | {' | '.join(map(_cell, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.translate(_CELL)
