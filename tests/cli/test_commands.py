"""The command as a person and as a script meet it."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from command_line import Run, answer
from loractl.main import main
from rankloom.errors import ConflictError, NotFoundError, RefError, RegistryError


def test_the_whole_journey(run: Run, place: Path) -> None:
    assert (
        "zh@v1, prod on base"
        in run("push", "./zh", "zh", "--base", "./base", "--alias", "prod").stdout
    )
    run("push", "qa/", "qa", "--base", "base")
    listed = run("list").stdout
    assert "zh" in listed
    assert "qa" in listed
    assert "ok" in run("validate", "zh", "--against", "./base").stdout
    run("compose", "zh:prod", "./qa", "--weights", "1,-0.5", "-o", "both", "--push", "zh-qa")
    run("apply", "zh", "qa", "--weights", "1,-0.5", "--base", "base", "-o", "one")
    run("apply", "both/", "--base", "base", "-o", "two")
    one, two = (load_file(place / name / "model.safetensors") for name in ("one", "two"))
    for name, values in one.items():
        # The composition keeps float32 factors, so a last bit may differ.
        np.testing.assert_allclose(values, two[name], rtol=1e-5, atol=1e-6)
    before = load_file(place / "base/model.safetensors")
    assert any((before[name] != one[name]).any() for name in one)


def test_json_is_for_machines(run: Run) -> None:
    pushed = answer(run("push", "./zh", "zh", "--base", "./base", "--json"))
    assert (pushed["namespace"], pushed["name"], pushed["number"]) == ("default", "zh", 1)
    assert answer(run("list", "--json"))[0]["latest"]["digest"] == pushed["digest"]
    assert answer(run("show", "zh", "--json"))["versions"][0]["digest"] == pushed["digest"]
    assert Path(answer(run("pull", "zh", "--json"))["path"]).is_dir()
    assert answer(run("alias", "zh", "prod", "--json"))["after"] == pushed["digest"]
    assert answer(run("base", "list", "--json"))[0]["name"] == "base"
    assert answer(run("base", "show", "base", "--json"))["fingerprint"] == answer(
        run("base", "fingerprint", "base", "--json")
    )
    report = answer(run("validate", "zh", "--against", "./base", "--json"))["adapters"][0]
    assert (report["ok"], report["level"], report["adapter"]) == (True, "exact", "zh")
    applied = answer(run("apply", "zh", "--base", "base", "-o", "merged", "--json", "--digest"))
    assert applied["digest"].startswith("sha256:")
    assert applied["targets"] == 2
    saved = answer(run("compose", "zh", "-o", "saved", "--json"))
    assert saved["ranks"] == [4]


def test_errors_say_what_which_and_the_next_step(run: Run) -> None:
    result = run("pull", "nobody", code=NotFoundError.exit_code)
    assert "nobody" in result.stderr
    assert "hint:" in result.stderr
    error = answer(run("pull", "nobody", "--json", code=NotFoundError.exit_code))["error"]
    assert error["code"] == "not-found"


def test_a_registry_that_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKLOOM_URL", "http://127.0.0.1:9")
    assert "127.0.0.1:9" in run("list", code=RegistryError.exit_code).stderr


def test_validate_ends_with_its_own_codes(run: Run, place: Path) -> None:
    run("validate", "./zh", "--against", "./base")
    weights = place / "zh/adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({name: values * np.nan for name, values in tensors.items()}, weights)
    assert "NUM001" in run("validate", "./zh", code=1).stdout
    run("validate", "./zh", "--headers-only")
    assert "not checked" in run("validate", "./zh", "--headers-only").stdout
    run("validate", "./nowhere", code=3)
    run("validate", "nobody", code=3)
    run("validate", "a/b/c", code=2)
    run("validate", code=2)


def test_an_output_that_exists_is_never_overwritten(run: Run, place: Path) -> None:
    run("compose", "./zh", "-o", "qa", code=ConflictError.exit_code)
    run("apply", "./zh", "--base", "base", "-o", "base", code=ConflictError.exit_code)
    run("push", "./zh", "zh", "--base", "./base")
    run("pull", "zh", "-o", "qa", code=ConflictError.exit_code)
    assert len(list((place / "qa").iterdir())) == 2


def test_weights_are_numbers_one_for_each(run: Run) -> None:
    run("compose", "./zh", "./qa", "--weights", "1,x", "-o", "out", code=2)
    assert "MRG003" in run("compose", "./zh", "./qa", "--weights", "1", "-o", "o", code=2).stderr
    assert "MRG003" in run("compose", "./zh", "--weights", "nan", "-o", "out", code=2).stderr
    run("compose", "./zh", code=2)


def test_a_yank_needs_a_reason(run: Run) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    run("yank", "zh", code=2)
    run("yank", "zh", "--reason", "wrong data")
    assert "yanked" in run("show", "zh").stdout
    assert "wrong data" in run("pull", "zh@v1").stderr
    run("yank", "zh@v1", "--undo")
    assert "wrong data" not in run("pull", "zh@v1").stderr


def test_another_base_is_refused_by_apply(run: Run, place: Path) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    other = shutil.copytree(place / "base", place / "other")
    weights = load_file(other / "model.safetensors")
    next(iter(weights.values()))[0, 0] += 1
    save_file(weights, other / "model.safetensors")
    result = run("apply", "zh", "--base", "./other", "-o", "out", code=7)
    assert "BASE003" in result.stderr
    assert not (place / "out").exists()


def test_a_rule_says_why_and_how_to_fix_it(run: Run) -> None:
    shown = run("rule", "ten002").stdout
    assert "TEN002" in shown
    assert "why:" in shown
    assert "fix:" in shown


def test_every_rule_can_be_asked_for(run: Run) -> None:
    listed = [found["id"] for found in answer(run("rule", "--json"))]
    assert {"TEN002", "BASE003", "MRG001", "NUM005"} <= set(listed)
    assert {f"INT00{number}" for number in range(1, 6)} <= set(listed)
    pages = {page.stem for page in (Path(__file__).parents[2] / "docs/rules").glob("*.md")}
    assert pages == set(listed)
    table = run("rule").stdout
    for rule in listed:
        assert rule in table
        assert run("rule", rule).stdout.startswith(f"{rule} (")


def test_an_unknown_rule_is_told_with_those_nearby(run: Run) -> None:
    said = run("rule", "TEN02", code=NotFoundError.exit_code).stderr
    assert "there is no rule 'TEN02'" in said
    assert "perhaps TEN002" in said
    said = run("rule", "NOPE", code=NotFoundError.exit_code).stderr
    assert "perhaps" not in said
    assert "'loractl rule' lists them all" in said


def test_help_says_of_each_command_what_it_does(run: Run) -> None:
    said = run("--help").stdout
    assert said.count("...") == 1, "beside the usage, a sentence that is cut off"
    listed = re.findall(r"^  ([a-z]\S*)  ", said, re.MULTILINE)
    assert sorted(listed) == sorted(main.commands)


@pytest.mark.parametrize(
    "url", ["registry.acme.org", "127.0.0.1:8080", "ftp://acme", "http://", "http://[::"]
)
def test_an_address_that_is_none_is_told_apart_from_one_that_does_not_answer(
    run: Run, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("RANKLOOM_URL", url)
    said = run("list", code=RefError.exit_code).stderr
    assert "is no address of a registry" in said
    assert "http:// or https://" in said
