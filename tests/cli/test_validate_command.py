"""``loractl validate``: formats, outputs, settings, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import Run, answer


@pytest.fixture(autouse=True)
def outside_of_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def broken(place: Path) -> Path:
    path = place / "qa/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 0}, indent=2))
    return path


def test_text_is_by_adapter_with_fixes(run: Run, broken: Path) -> None:
    del broken
    lines = run("validate", "./zh", "./qa", code=1).stdout.splitlines()
    assert lines[0].startswith("./zh: ok")
    start = next(n for n, line in enumerate(lines) if line.startswith("./qa: refused (1 error"))
    assert lines[start + 1].startswith("  error: CFG005")
    assert lines[start + 2].startswith("    fix: ")
    assert lines[-1] == "2 adapters: 1 ok, 1 refused"
    assert "\x1b" not in "".join(lines)


def test_text_leaves_out_what_only_an_option_turns_on(run: Run) -> None:
    shown = run("validate", "./zh").stdout
    assert "not checked: " in shown
    assert "no base was given" in shown
    assert "engine" not in shown
    (entry,) = answer(run("validate", "./zh", "--json"))["adapters"]
    assert "ENG001" in {item["rule"] for item in entry["not_checked"]}
    shown = run("validate", "./zh", "--select", "ENG", code=3).stdout
    assert "(no engine was named)" in shown
    shown = run("validate", "./zh", "--engine", "vllm").stdout
    assert "vLLM 0.33.0: accept" in shown


def test_several_formats_at_once(run: Run, broken: Path, place: Path) -> None:
    del broken
    shown = run(
        "validate", "./qa", "-o", "sarif=out/report.sarif", "-o", "junit=out/report.xml", code=1
    ).stdout
    assert shown.startswith("./qa: refused")
    sarif = json.loads((place / "out/report.sarif").read_text())
    assert sarif["runs"][0]["results"][0]["ruleId"] == "CFG005"
    assert "<testsuites" in (place / "out/report.xml").read_text()
    run("validate", "./qa", "--format", "json", "--output", "report.json", code=1)
    assert json.loads((place / "report.json").read_text())["exit_code"] == 1
    shown = run("validate", "./qa", "--format", "json", "-o", "text=report.txt", code=1).stdout
    assert json.loads(shown)["exit_code"] == 1
    assert (place / "report.txt").read_text().startswith("./qa: refused")


def test_a_job_of_github_gets_annotations_and_a_summary(
    run: Run, broken: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del broken
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place / "summary.md"))
    (place / "summary.md").write_text("before\n")
    shown = run("validate", "./qa", code=1).stdout
    assert shown.startswith("::error file=qa/adapter_config.json,line=4,title=CFG005::")
    summary = (place / "summary.md").read_text()
    assert summary.startswith("before\n")
    assert "| ./qa | ❌ refused | CFG005 |" in summary
    assert run("validate", "./zh", "--format", "text").stdout.startswith("./zh: ok")


def test_one_that_is_missing_does_not_hide_the_others(run: Run) -> None:
    found = answer(run("validate", "./zh", "nobody", "--json", code=3))
    assert [entry["verdict"] for entry in found["adapters"]] == ["ok", "open"]
    run("validate", "./zh", "--against", "./nowhere", code=3)


def test_rules_are_chosen(run: Run, broken: Path) -> None:
    del broken
    found = answer(run("validate", "./qa", "--ignore", "cfg005,TEN", "--json", code=3))
    assert found["adapters"][0]["findings"] == []
    assert run("validate", "./zh", "--select", "FMT", "--select", "SEC01,NUM").exit_code == 0
    run("validate", "./zh", "--select", "BASE", code=3)
    run("validate", "./zh", "--select", "ALL")
    run("validate", "./zh", "--select", "XYZ", code=2)
    Path("zh/optimizer.pt").write_bytes(b"x")
    run("validate", "./zh", "--fail-on", "warning")
    run("validate", "./zh", "--fail-on", "info", code=1)


def test_a_level_that_was_asked_for(run: Run) -> None:
    run("validate", "./zh", "--against", "./base", "--level", "exact", code=3)
    run("push", "./zh", "zh", "--base", "./base")
    run("validate", "zh", "--against", "./base", "--level", "exact")
    run("validate", "zh", "--against", "./base", "--level", "exact", "--headers-only", code=3)


def test_a_baseline_lets_only_new_findings_fail(run: Run, broken: Path, place: Path) -> None:
    run("validate", "./qa", "--write-baseline", "known.json")
    run(
        "validate",
        "./qa",
        "--baseline",
        "known.json",
        "--ignore",
        "TEN,NUM,CFG006,CFG007,CFG008,SEC006,BASE001",
    )
    run("validate", "./qa", "--baseline", "known.json", code=3)  # it could not be read further
    broken.write_text(broken.read_text().replace('"r": 2', '"r": -1'))
    run("validate", "./qa", "--baseline", "known.json", code=1)
    (place / "known.json").write_text("[]")
    run("validate", "./qa", "--baseline", "known.json", code=2)
    run("validate", "./qa", "--baseline", "gone.json", code=2)


@pytest.mark.parametrize(
    ("name", "table"),
    [("loractl.toml", "validate"), ("pyproject.toml", "tool.loractl.validate")],
)
def test_a_project_sets_options(
    name: str, table: str, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        f"[{table}]",
        'against = "./base"',
        'fail-on = "warning"',
        'ignore = ["base001"]',
        "headers-only = true",
        f"[{table}.per-adapter-ignores]",
        '"*/zh" = ["TEN006"]',
    ]
    (place / name).write_text("\n".join(lines))
    (place / "deep/er").mkdir(parents=True)
    monkeypatch.chdir(place / "deep/er")
    found = answer(run("validate", "../../zh", "--json"))
    (entry,) = found["adapters"]
    assert found["fail_on"] == "warning"
    assert {"TEN005", "BASE002"} <= set(entry["checked"])
    assert "BASE001" not in entry["checked"]
    assert {"NUM001"} <= {item["rule"] for item in entry["not_checked"]}
    found = answer(run("validate", "../../zh", "--fail-on", "error", "--json"))
    assert found["fail_on"] == "error"


@pytest.mark.parametrize(
    ("text", "place_of_error"),
    [
        ('[validate]\nagainst = "x"\nfial-on = "error"\n', "loractl.toml:3: validate.fial-on"),
        ("[validate]\n\nselect = 7\n", "loractl.toml:3: validate.select"),
        ('[validate]\nfail-on = "never"\n', "loractl.toml:2: validate.fail-on"),
        ("# x\n[validator]\na = 1\n", "loractl.toml:2: validator"),
        ('[validate.per-adapter-ignores]\n"*" = "TEN"\n', "loractl.toml:1: validate.per-adapter"),
        ("validate = 1\n", "loractl.toml:1: validate"),
        ("[validate\n", "loractl.toml is no TOML"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_line(
    text: str, place_of_error: str, run: Run, place: Path
) -> None:
    (place / "loractl.toml").write_text(text)
    assert place_of_error in run("validate", "./zh", code=2).stderr


def test_a_fix_goes_to_a_new_folder(run: Run, broken: Path, place: Path) -> None:
    text = broken.read_text().replace('"lora_alpha": 0', '"lora_alpha": "8"')
    broken.write_text(text)
    run("validate", "./qa", code=1)
    result = run("validate", "./qa", "--fix", "fixed")
    assert "./qa: CFG005 lora_alpha is 8, it was '8'" in result.stderr
    assert result.stdout.startswith("./fixed: ok")
    assert broken.read_text() == text
    run("validate", "./qa", "--fix", "fixed", code=5)
    run("validate", "./qa", "./zh", "--fix-in-place", "--pad-rank", "8")
    found = json.loads((place / "zh/adapter_config.json").read_text())
    assert (found["r"], found["lora_alpha"]) == (8, 16)


def test_a_fix_says_where(run: Run) -> None:
    run("validate", "./zh", "--fix", "a", "--fix-in-place", code=2)
    run("validate", "./zh", "--pad-rank", "8", code=2)
    run("validate", "./zh", "./qa", "--fix", "a", code=2)
    run("validate", "zh", "--fix", "a", code=2)


def test_settings_of_other_tools_are_not_ours(run: Run, place: Path) -> None:
    (place / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    run("validate", "./zh")
