"""The report as SARIF 2.1.0 (OASIS), which code hosts show beside the files.

``partialFingerprints`` make a finding one alert over many runs; ``security-severity`` is set for
the SEC rules only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankloom import __version__, digest
from rankloom.finding import Severity
from rankloom.validate.identity import identity
from rankloom.validate.location import Location, Locator
from rankloom.validate.policy import OPEN
from rankloom.validate.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.finding import Finding
    from rankloom.validate.outcome import Outcome
    from rankloom.validate.report import Report
    from rankloom.validate.rule import Rule

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_SECURITY = "8.0"
"""``security-severity`` of SEC rules: what GitHub shows as high."""
_INDEX = {rule: number for number, rule in enumerate(RULES)}


def render(outcome: Outcome) -> str:
    """Return the log as text."""
    return json.dumps(log(outcome), indent=2, ensure_ascii=False) + "\n"


def log(outcome: Outcome) -> dict[str, Any]:
    """Return the SARIF log of a run."""
    files: dict[str, Path] = {}
    results = [
        found for name, report in outcome.reports.items() for found in _results(name, report, files)
    ]
    driver = {
        "name": "loractl validate",
        "semanticVersion": __version__,
        "rules": [_rule(rule) for rule in RULES.values()],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [_invocation(outcome)],
        "artifacts": [_artifact(uri, path) for uri, path in files.items()],
        "results": results,
        "columnKind": "unicodeCodePoints",
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    security = {"security-severity": _SECURITY} if rule.id.startswith("SEC") else {}
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "helpUri": rule.page,
        "help": {
            "text": f"{rule.why} {rule.fix}",
            "markdown": f"{rule.why}\n\n**Fix:** {rule.fix}",
        },
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"tags": [rule.family], **security},
    }


def _results(name: str, report: Report, files: dict[str, Path]) -> Iterator[dict[str, Any]]:
    locator = Locator(Path(report.subject), name)
    counted = [(found, "") for found in report.findings]
    for found, reason in (*counted, *report.suppressed):
        location = locator.locate(found)
        files.setdefault(location.uri, location.path)
        yield {
            "ruleId": found.rule,
            "ruleIndex": _INDEX[found.rule],
            "level": _LEVELS[found.severity],
            "message": {"text": _message(name, found)},
            "locations": [_location(location, list(files).index(location.uri))],
            "partialFingerprints": {"rankloom/v1": identity(name, found, report.subject)},
            **({"suppressions": [_suppression(reason)]} if reason else {}),
        }


def _message(name: str, found: Finding) -> str:
    fix = f" Fix: {found.fix}" if found.fix else ""
    return f"{name}: {found.message}.{fix}"


def _suppression(reason: str) -> dict[str, str]:
    return {"kind": "external", "justification": reason}


def _location(location: Location, index: int) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(location.uri), "index": index}}
    if location.line is not None:
        physical["region"] = {"startLine": location.line}
    found: dict[str, Any] = {"physicalLocation": physical}
    if location.name:
        kind = "member" if location.line is None else "property"
        found["logicalLocations"] = [{"fullyQualifiedName": location.name, "kind": kind}]
    return found


def _uri(path: str) -> str:
    from urllib.parse import quote

    return quote(path)


def _artifact(uri: str, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"location": {"uri": _uri(uri)}}
    if path.is_file():
        found["length"] = path.stat().st_size
        found["hashes"] = {"sha-256": digest.of_file(path).removeprefix("sha256:")}
    return found


def _invocation(outcome: Outcome) -> dict[str, Any]:
    notes = [
        {
            "level": "error" if rule in report.blocked else "note",
            "message": {"text": f"{name}: {rule} was not checked: {reason}"},
            "associatedRule": {"id": rule},
        }
        for name, report in outcome.reports.items()
        for rule, reason in report.not_checked.items()
    ]
    return {
        "executionSuccessful": outcome.exit_code != OPEN,
        "exitCode": outcome.exit_code,
        "toolExecutionNotifications": notes,
    }
