"""The report as a JSON document, described by ``schema.json`` beside this file.

``schema_version`` grows when a reader of the old one would read the new one wrongly; new fields
alone do not change it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankloom import __version__
from rankloom.validate.identity import identity
from rankloom.validate.location import Locator

if TYPE_CHECKING:
    from rankloom.finding import Finding
    from rankloom.validate.outcome import Outcome
    from rankloom.validate.report import Report

SCHEMA_VERSION = 1
SCHEMA = Path(__file__).with_name("schema.json")


def render(outcome: Outcome) -> str:
    """Return the document as text."""
    return json.dumps(document(outcome), indent=2, ensure_ascii=False) + "\n"


def document(outcome: Outcome) -> dict[str, Any]:
    """Return the document of a run."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "rankloom", "version": __version__},
        "exit_code": outcome.exit_code,
        "fail_on": outcome.policy.fail_on,
        "adapters": [
            {"adapter": name, "verdict": outcome.verdict(name), **_adapter(name, report)}
            for name, report in outcome.reports.items()
        ],
    }


def _adapter(name: str, report: Report) -> dict[str, Any]:
    locator = Locator(Path(report.subject), name)

    def spoken(found: Finding) -> dict[str, Any]:
        location = locator.locate(found)
        return {
            "rule": found.rule,
            "severity": found.severity,
            "message": found.message,
            "where": found.where,
            "fix": found.fix,
            "file": location.uri,
            "line": location.line,
            "identity": identity(name, found, report.subject),
        }

    return {
        "ok": report.ok,
        "level": report.level,
        "findings": [spoken(found) for found in report.findings],
        "suppressed": [{**spoken(found), "reason": why} for found, why in report.suppressed],
        "engines": [
            {
                "engine": judged.text,
                "name": judged.name,
                "verdict": judged.verdict,
                "open": judged.open,
                "reasons": [asdict(reason) for reason in judged.reasons],
            }
            for judged in report.engines
        ],
        "checked": list(report.checked),
        "not_checked": [
            {"rule": rule, "reason": reason, "asked": rule in report.blocked}
            for rule, reason in report.not_checked.items()
        ],
    }
