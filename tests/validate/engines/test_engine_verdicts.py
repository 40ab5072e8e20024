"""Every cell of every engine's file is reported for an adapter that has the feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine_cases import CASES, SOUND
from rankloom.finding import Severity
from rankloom.validate.engines import FEATURES, Verdict, engines

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.validate import Report

NAMES = [engine.name for engine in engines()]

SILENT = {
    "vllm": "missing-layers absent-module layer-beyond smaller other-base other-name",
    "sglang": "rslora alpha-pattern rank-pattern bias init alora layer-replication bdlora qalora "
    "saved-vocabulary unnamed-vocabulary half-pair missing-layers other-base",
    "tgi": "padded-rank absent-module layer-beyond missing-layers some-layers half-pair embedding "
    "saved-vocabulary dora alpha-pattern rank-pattern bias init alora layer-replication bdlora "
    "qalora prefix other-base other-name",
    "lorax": "padded-rank absent-module layer-beyond missing-layers some-layers half-pair "
    "saved-vocabulary dora rslora alpha-pattern rank-pattern bias init alora layer-replication "
    "bdlora qalora prefix other-base other-name",
    "llama.cpp": "rslora alpha-pattern alpha-zero init other-base",
    "tensorrt-llm": "alpha-pattern init alora layer-replication bdlora qalora uneven-attention "
    "other-base",
    "ollama": "rslora alpha-pattern alpha-zero init alora layer-replication bdlora qalora "
    "wide-rank other-base",
    "peft": "prefix absent-module layer-beyond half-pair missing-layers other-base other-name",
}
"""What was found to be served wrongly without an error; stated here apart from the data."""


def test_every_feature_has_its_case() -> None:
    assert CASES.keys() == FEATURES.keys()
    assert {engine.name for engine in engines()} == SILENT.keys()


def test_what_is_silent_is_what_was_found() -> None:
    for engine in engines():
        cells = {name for name, cell in engine.cells.items() if cell.verdict is Verdict.SILENT}
        assert cells >= set(SILENT[engine.name].split()), engine.name


def test_every_engine_accepts_the_usual_adapter(tmp_path: Path) -> None:
    report = SOUND.report(tmp_path, NAMES)
    assert report.ok, report.findings
    assert {judged.text: judged.verdict for judged in report.engines} == dict.fromkeys(
        NAMES, Verdict.ACCEPT
    )
    assert {feature.rule.id for feature in FEATURES.values()} <= set(report.checked)


@pytest.mark.parametrize("feature", CASES)
def test_every_engine_says_what_its_file_says(feature: str, tmp_path: Path) -> None:
    report = CASES[feature].report(tmp_path, NAMES)
    rule = FEATURES[feature].rule.id
    for engine, judged in zip(engines(), report.engines, strict=True):
        cell = engine.cells[feature]
        reasons = [reason for reason in judged.reasons if reason.feature == feature]
        if cell.verdict is Verdict.ACCEPT:
            assert not reasons
            continue
        assert reasons, judged
        assert {reason.verdict for reason in reasons} == {cell.verdict}
        assert all(reason.source and reason.remedy for reason in reasons)
        _said(rule, cell.verdict, judged.name, report)


def _said(rule: str, verdict: Verdict, name: str, report: Report) -> None:
    said = [f for f in report.findings if f.rule == rule and f.message.startswith(f"{name} ")]
    if verdict is Verdict.UNKNOWN:
        assert rule in report.blocked
        return
    wanted = Severity.WARNING if verdict is Verdict.DEGRADED else Severity.ERROR
    assert [finding.severity for finding in said] == [wanted] * len(said)
    assert said
    assert all(finding.fix for finding in said)


@pytest.mark.parametrize("feature", CASES)
def test_a_case_is_accepted_by_whoever_takes_all_that_it_has(feature: str, tmp_path: Path) -> None:
    """No case has a feature by accident: an engine names nothing that the case is not about."""
    report = CASES[feature].report(tmp_path, NAMES)
    found = {reason.feature for judged in report.engines for reason in judged.reasons}
    assert found <= {feature, *BESIDES.get(feature, ())}


BESIDES = {
    "padded-rank": (),
    "rank-pattern": (),
    "head": (),
    "large-head": ("head",),
    "unnamed-vocabulary": ("head",),
    "tied-head": ("head",),
    "convolution": ("absent-module", "other-module"),
    "prefix": (),
}
"""What a case must have as well."""
