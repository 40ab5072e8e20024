"""What machines read: each form is valid by its own schema and says what the report says."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as Xml

import jsonschema
import numpy as np
import pytest
import xmlschema

from folders import adapter, base, config, factors, tensor
from rankloom.base import reader as bases
from rankloom.finding import Finding, Severity
from rankloom.validate import RULES, Policy, Report, validate
from rankloom.validate.formats import document, github, junit, sarif
from rankloom.validate.outcome import Outcome
from rankloom.validate.run import impossible

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS = Path(__file__).parents[1] / "data/schemas"
SARIF = json.loads((SCHEMAS / "sarif-2.1.0-rtm.5.json").read_text())
JUNIT = xmlschema.XMLSchema(SCHEMAS / "jenkins-junit.xsd")
OURS = json.loads(document.SCHEMA.read_text())
HOSTILE = "a,b:c|d\u202e<script>]]>&\"'%0A::error::\x1b[31m\ud800\x00"


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Report]:
    """A sound adapter, broken ones, one with strange texts, and one that is not there."""
    monkeypatch.chdir(tmp_path)
    model = bases.read(base(tmp_path / "base"))
    broken = factors()
    broken[next(iter(broken))] = tensor(np.full((2, 8), np.nan, np.float32))
    folders = {
        "./good": adapter(tmp_path / "good"),
        "./nan": adapter(tmp_path / "nan", broken),
        "./alpha": adapter(tmp_path / "alpha", r=0, lora_alpha=-1),
        "./empty": adapter(tmp_path / "empty", b""),
        "./strange": adapter(tmp_path / "strange", **{HOSTILE: HOSTILE}),
    }
    (tmp_path / "alpha/adapter_config.json").write_text(json.dumps(config(r=0), indent=2))
    (tmp_path / "nan/optimizer.pt").write_bytes(b"x")
    return {
        **{name: validate(folder, model) for name, folder in folders.items()},
        "./alone": validate(adapter(tmp_path / "alone"), headers_only=True),
        "gone": impossible("gone", "there is no such adapter"),
    }


@pytest.fixture
def outcome(reports: dict[str, Report]) -> Outcome:
    return Outcome.of(reports, Policy(ignore_in={"*/nan": ("SEC001",)}))


def by_name(found: dict[str, Any]) -> dict[str, Any]:
    return {entry["adapter"]: entry for entry in found["adapters"]}


# --- JSON -----------------------------------------------------------------------------------------


def test_the_document_is_what_its_schema_says(outcome: Outcome) -> None:
    jsonschema.Draft202012Validator.check_schema(OURS)
    found = json.loads(document.render(outcome))
    jsonschema.validate(found, OURS, jsonschema.Draft202012Validator)
    assert found["exit_code"] == 1
    entries = by_name(found)
    assert {name: entry["verdict"] for name, entry in entries.items()} == {
        "./good": "ok", "./nan": "refused", "./alpha": "refused", "./empty": "refused",
        "./strange": "refused", "./alone": "ok", "gone": "open",
    }  # fmt: skip
    assert entries["./nan"]["suppressed"][0]["reason"] == "ignored in */nan"
    (wrong,) = entries["./alpha"]["findings"]
    assert (wrong["file"], wrong["line"]) == ("alpha/adapter_config.json", 4)
    assert all(entry["asked"] for entry in entries["gone"]["not_checked"])


@pytest.mark.parametrize("path", ["tool", "adapters.0.findings", "adapters.1.not_checked.0.reason"])
def test_the_schema_can_fail(path: str, outcome: Outcome) -> None:
    found = json.loads(document.render(outcome))
    *outer, last = path.split(".")
    value: Any = found
    for key in outer:
        value = value[int(key) if key.isdecimal() else key]
    value[last] = None
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, OURS)


def test_every_rule_is_spoken_of_once(outcome: Outcome) -> None:
    for report in outcome.reports.values():
        assert sorted([*report.checked, *report.not_checked]) == sorted(RULES)


# --- SARIF ----------------------------------------------------------------------------------------


def test_sarif_is_valid_by_the_official_schema(outcome: Outcome) -> None:
    found = json.loads(sarif.render(outcome))
    jsonschema.validate(found, SARIF, jsonschema.Draft4Validator)
    (run,) = found["runs"]
    findings = [f for report in outcome.reports.values() for f in report.findings]
    counted = [result for result in run["results"] if "suppressions" not in result]
    assert [result["ruleId"] for result in counted] == [found.rule for found in findings]
    assert len(run["results"]) == len(findings) + 1
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    names = [result["partialFingerprints"]["rankloom/v1"] for result in run["results"]]
    assert len(set(names)) == len(names)
    security = {rule["id"] for rule in rules if "security-severity" in rule["properties"]}
    assert security == {rule for rule in RULES if rule.startswith("SEC")}
    pages = {urlsplit(rule["helpUri"]).path.partition("/docs/")[2]: rule["id"] for rule in rules}
    assert pages == {f"rules/{rule}.md": rule for rule in RULES}
    assert all((DOCS / page).is_file() for page in pages)
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert any("no such adapter" in note["message"]["text"] for note in notes)


def test_sarif_places_are_files_of_the_repository(outcome: Outcome, tmp_path: Path) -> None:
    (run,) = sarif.log(outcome)["runs"]
    for result in run["results"]:
        place = result["locations"][0]["physicalLocation"]["artifactLocation"]
        artifact = run["artifacts"][place["index"]]
        assert artifact["location"]["uri"] == place["uri"]
        data = (tmp_path / place["uri"]).read_bytes()
        assert artifact["hashes"]["sha-256"] == hashlib.sha256(data).hexdigest()
    (nan,) = [result for result in run["results"] if result["ruleId"] == "NUM001"]
    assert nan["locations"][0]["logicalLocations"][0]["fullyQualifiedName"].endswith(
        "lora_A.weight"
    )
    assert "region" not in nan["locations"][0]["physicalLocation"]


# --- JUnit ----------------------------------------------------------------------------------------


def test_junit_is_valid_by_the_schema_of_jenkins(outcome: Outcome) -> None:
    text = junit.render(outcome)
    JUNIT.validate(text)
    root = Xml.fromstring(text)  # noqa: S314 - our own text
    suites = {suite.get("name"): suite for suite in root}
    assert suites.keys() == outcome.reports.keys()
    for name, report in outcome.reports.items():
        suite = suites[name]
        assert len(suite) == len(RULES)
        failures = suite.findall("testcase/failure")
        assert [found.get("type") for found in failures] == [f.rule for f in report.errors]
        assert len(suite.findall("testcase/error")) == len(report.blocked)
        skipped = report.not_checked.keys() - report.blocked
        assert len(suite.findall("testcase/skipped")) == len(skipped)
    assert root.get("failures") == str(sum(len(r.errors) for r in outcome.reports.values()))


def test_a_warning_fails_only_if_it_shall() -> None:
    warned = Report("x", (Finding("TEN006", "a", Severity.WARNING),), ("TEN006",))
    for fail_on, failures in ((Severity.ERROR, "0"), (Severity.WARNING, "1")):
        text = junit.render(Outcome.of({"x": warned}, Policy(fail_on=fail_on)))
        assert f'failures="{failures}"' in text
        assert "TEN006" in text


# --- GitHub ---------------------------------------------------------------------------------------

COMMAND = re.compile(r"::(error|warning|notice) (?:[a-z]+=[^,:\r\n]*,?)+::[^\r\n]*")


def test_every_annotation_is_one_command(outcome: Outcome) -> None:
    lines = github.render(outcome).splitlines()
    assert all(COMMAND.fullmatch(line) for line in lines)
    findings = sum(len(report.findings) for report in outcome.reports.values())
    blocked = sum(bool(report.blocked) for report in outcome.reports.values())
    assert len(lines) == findings + blocked
    alpha = next(line for line in lines if "title=CFG004" in line)
    assert alpha.startswith("::error file=alpha/adapter_config.json,line=4,title=CFG004::./alpha: ")
    assert "%0Afix: " in alpha


def test_the_summary_is_one_table(outcome: Outcome) -> None:
    rows = [line for line in github.summary(outcome).splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)
    for name in outcome.reports:
        assert any(f"| {name} |" in row for row in rows)
    assert "<script>" not in "".join(rows)


@pytest.mark.parametrize("form", [document, sarif, junit, github])
def test_no_form_carries_control_characters(form: Any, outcome: Outcome) -> None:  # noqa: ANN401
    text = form.render(outcome)
    assert text.replace("\n", "").isprintable()
    text.encode("utf-8")
