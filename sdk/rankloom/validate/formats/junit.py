"""The report as JUnit's XML, in the form that Jenkins and GitLab read.

One suite per adapter, one case per rule: failed if a finding counts as a failure, skipped if the
rule was not checked, an error if it was asked for and could not be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

from rankloom.validate.rules import RULES

if TYPE_CHECKING:
    from rankloom.finding import Finding
    from rankloom.validate.outcome import Outcome
    from rankloom.validate.report import Report


def render(outcome: Outcome) -> str:
    """Return the document as text."""
    root = Xml.Element("testsuites", name="loractl validate")
    for name, report in outcome.reports.items():
        root.append(_suite(name, report, outcome))
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, "unicode") + "\n"


def _suite(name: str, report: Report, outcome: Outcome) -> Xml.Element:
    cases = [_case(name, rule, report, outcome) for rule in _rules(report)]
    suite = Xml.Element("testsuite", name=name, tests=str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    suite.extend(cases)
    return suite


def _rules(report: Report) -> list[str]:
    spoken = {*report.checked, *report.not_checked, *(found.rule for found in report.findings)}
    return [rule for rule in RULES if rule in spoken]


def _case(name: str, rule: str, report: Report, outcome: Outcome) -> Xml.Element:
    case = Xml.Element("testcase", classname=name, name=f"{rule} {RULES[rule].title}")
    found = [finding for finding in report.findings if finding.rule == rule]
    failing = [finding for finding in found if outcome.policy.fails(finding)]
    if not failing and rule in report.not_checked:
        reason = _plain(report.not_checked[rule])
        if rule in report.blocked:
            Xml.SubElement(case, "error", type="not checked", message=reason)
        else:
            Xml.SubElement(case, "skipped").text = reason
    for finding in failing:
        failure = Xml.SubElement(case, "failure", type=rule, message=_plain(finding.message))
        failure.text = _plain(_text(finding))
    for finding in found:
        if finding not in failing:
            Xml.SubElement(case, "system-out").text = _plain(f"{finding.severity}: {finding}")
    return case


def _text(finding: Finding) -> str:
    where = f"\nwhere: {finding.where}" if finding.where else ""
    return f"{finding.message}{where}\nfix: {finding.fix}"


def _plain(text: str) -> str:
    """Return a text with nothing that XML 1.0 cannot carry."""
    kept = (sign if sign.isprintable() or sign == "\n" else "\ufffd" for sign in text)
    return "".join(kept)
