"""Every rule finds what breaks it, and passes what only comes close."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rankloom.validate import RULES
from rule_cases import CASES

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = {"BASE007", "PRB001", "PRB002"}
"""A base that cannot be read is an error before there is a report (tests/base, tests/cli); a probe
runs the model (tests/probe)."""


def test_every_rule_has_its_cases() -> None:
    assert CASES.keys() | ELSEWHERE >= {rule for rule in RULES if not rule.startswith("ENG")}
    assert not CASES.keys() & ELSEWHERE


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_finds_what_breaks_it(rule: str, tmp_path: Path) -> None:
    report = CASES[rule].broken(tmp_path)
    found = [finding for finding in report.findings if finding.rule == rule]
    assert found, report.findings
    assert rule in report.checked
    assert all(finding.fix for finding in found)
    assert found[0].severity is RULES[rule].severity


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_passes_what_comes_close(rule: str, tmp_path: Path) -> None:
    report = CASES[rule].sound(tmp_path)
    assert rule in report.checked
    assert not [finding for finding in report.findings if finding.rule == rule]
