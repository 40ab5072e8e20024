"""What a CI calls, called as it calls it: the action's steps, the hook, the pages' examples."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapter_folder import write_adapter
from folders import adapter, base, base_tensors, factors, tensor

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/ci.md").read_text()
BIN = Path(sys.executable).parent
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a base, a sound adapter, and one whose file is a Git LFS pointer."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("GITHUB_", "GIT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RANKLOOM_HOME", str(tmp_path / ".home"))
    shapes = {f"model.layers.{n}.self_attn.q_proj": (8, 8) for n in range(2)}
    base(tmp_path / "base", {n: tensor(v) for n, v in base_tensors(shapes).items()})
    write_adapter(tmp_path / "adapters/zh")
    write_adapter(tmp_path / "adapters/qa")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 1234\n" % ("0" * 64)
    write_adapter(tmp_path / "adapters/lfs")
    (tmp_path / "adapters/lfs/adapter_model.safetensors").write_text(pointer)
    return tmp_path


# --- GitHub ---------------------------------------------------------------------------------------


def act(place: Path, **given: str) -> tuple[int, str, dict[str, str]]:
    """Run the action's steps as the runner does; return exit code, log and outputs."""
    inputs = {name: value.get("default", "") for name, value in ACTION["inputs"].items()}
    inputs |= {"package": "", **{name.replace("_", "-"): text for name, text in given.items()}}
    (place / "output").write_text("")
    env = {
        **os.environ,
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(place / "output"),
        "GITHUB_STEP_SUMMARY": str(place / "summary.md"),
    }
    code, log = 0, ""
    for step in ACTION["runs"]["steps"]:
        if "if" in step and not _holds(step["if"], inputs):
            continue
        named = {key: _fill(str(text), inputs) for key, text in step["env"].items()}
        (place / "step.sh").write_text(step["run"])
        # What the runner makes of `shell: bash`.
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "step.sh"]
        done = subprocess.run(
            command, cwd=place, env=env | named, capture_output=True, text=True, check=False
        )
        code, log = done.returncode, log + done.stdout + done.stderr
        if code:
            break
    lines = (place / "output").read_text().splitlines()
    return code, log, dict(line.split("=", 1) for line in lines)


def _fill(text: str, inputs: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: inputs[found[1]], text)


def _holds(condition: str, inputs: dict[str, str]) -> bool:
    found = re.fullmatch(r"\$\{\{ inputs\.([\w-]+) != '' \}\}", condition)
    assert found, f"the test does not know the condition {condition}"
    return inputs[found[1]] != ""


def test_the_action_passes_a_sound_adapter(place: Path) -> None:
    code, log, outputs = act(
        place, adapters="./adapters/zh\n./adapters/qa\n", against="./base", junit="r/junit.xml"
    )
    assert (code, outputs) == (0, {"exit-code": "0"}), log
    assert json.loads((place / "loractl.sarif").read_text())["runs"][0]["results"] == []
    assert (place / "r/junit.xml").is_file()
    assert "./adapters/zh" in (place / "summary.md").read_text()


def test_the_action_fails_with_annotations(place: Path) -> None:
    code, log, outputs = act(place, adapters="./adapters/lfs")
    assert (code, outputs) == (1, {"exit-code": "1"})
    wanted = "::error file=adapters/lfs/adapter_model.safetensors,title=FMT014::"
    assert wanted in log
    assert "git lfs pull" in log


LEAST = ["error", "warning"]


def unaligned(file: Path) -> None:
    """Move the data of a tensor file by a byte, which is a warning (FMT013)."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    file.write_bytes((length + 1).to_bytes(8, "little") + header + b" " + data)


def test_the_action_hands_all_options_on(place: Path) -> None:
    code, _, _ = act(place, adapters="./adapters/zh", select="BASE002")
    assert code == 3
    unaligned(place / "adapters/zh/adapter_model.safetensors")
    assert [act(place, adapters="./adapters/zh", fail_on=least)[0] for least in LEAST] == [0, 1]
    code, log, _ = act(
        place, adapters="./adapters/lfs", ignore="FMT,CFG,TEN,NUM,BASE,SEC", headers_only="true"
    )
    assert code == 0, log
    code, log, _ = act(place, adapters="./adapters/lfs", baseline="none.json")
    assert code == 2


def test_the_action_asks_each_engine(place: Path) -> None:
    config = place / "adapters/zh/adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_rslora": True}))
    assert act(place, adapters="./adapters/zh")[0] == 0
    assert act(place, adapters="./adapters/zh", engine="vllm==0.33,max_lora_rank=64")[0] == 0
    code, log, _ = act(place, adapters="./adapters/zh", engine="vllm\nllama.cpp\n\n")
    assert code == 1
    assert "vLLM 0.33.0: accept" in log
    assert "llama.cpp 0b03adaa: silent-wrong" in log
    assert "title=ENG005::" in log
    assert act(place, adapters="./adapters/zh", engine="vlm")[0] == 2


def test_an_input_is_never_a_command(place: Path) -> None:
    evil = "./x$(touch pwned)\n--help\n`touch pwned`; touch pwned"
    code, _, _ = act(place, adapters=evil, against="$(touch pwned)", engine="`touch pwned`")
    assert code in {2, 3}
    assert not (place / "pwned").exists()
    scripts = [step["run"] for step in ACTION["runs"]["steps"]]
    assert not any("${{" in script for script in scripts)


def check_schema(schema: str, text: str, place: Path) -> None:
    (place / "checked.yml").write_text(text)
    command = [BIN / "check-jsonschema", "--builtin-schema", schema, "checked.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_file_is_valid_by_its_hosts_schema(place: Path) -> None:
    github, gitlab, _ = blocks("yaml")
    check_schema("vendor.github-actions", (ROOT / "action.yml").read_text(), place)
    check_schema("vendor.github-workflows", github, place)
    check_schema("vendor.gitlab-ci", gitlab, place)
    (uses,) = [step for step in yaml.safe_load(github)["jobs"]["adapters"]["steps"]
               if step["uses"].startswith("rankloom/")]  # fmt: skip
    assert uses["with"].keys() <= ACTION["inputs"].keys()


# --- GitLab ---------------------------------------------------------------------------------------


def test_the_gitlab_job_runs(place: Path) -> None:
    job = yaml.safe_load(blocks("yaml")[1])["adapters"]
    install, *commands = job["script"]
    assert install == "pip install rankloom"
    for command in commands:
        subprocess.run(["bash", "-c", command], cwd=place, check=True)
    assert (place / job["artifacts"]["reports"]["junit"]).is_file()


# --- pre-commit -----------------------------------------------------------------------------------


def test_the_hook_checks_what_is_staged(place: Path) -> None:
    checked = [BIN / "pre-commit", "validate-manifest", ROOT / ".pre-commit-hooks.yaml"]
    subprocess.run(checked, check=True, capture_output=True)
    # In pre-commit's own environment the hook is installed by pip; here loractl is on the path.
    hooks = [{**hook, "language": "system"} for hook in HOOKS]
    config = {"repos": [{"repo": "local", "hooks": hooks}]}
    (place / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "adapters/zh", ".pre-commit-config.yaml"], check=True)
    passed = precommit(place)
    assert passed.returncode == 0, passed.stdout
    assert "Passed" in passed.stdout
    subprocess.run([*git, "add", "adapters/lfs"], check=True)
    failed = precommit(place)
    assert failed.returncode == 1
    assert failed.stdout.count("FMT014") == 1  # two files were staged, the folder is read once


def precommit(place: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PRE_COMMIT_HOME": str(place / ".pre-commit")}
    command = [BIN / "pre-commit", "run", "--verbose"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_the_pre_commit_example_names_the_hook() -> None:
    (hook,) = yaml.safe_load(blocks("yaml")[2])["repos"][0]["hooks"]
    assert hook["id"] == HOOKS[0]["id"]


# --- the page: running the base -----------------------------------------------------------------


def test_the_probe_of_the_page_is_kept_and_compared(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from loractl.main import main
    from rankloom import sdk
    from tiny_models import build

    build("llama").save_pretrained(place / "model")
    shapes = {f"model.layers.{n}.self_attn.q_proj": (16, 16) for n in range(2)}
    adapter(place / "out", factors(shapes, 2), target_modules=["q_proj"])
    monkeypatch.setattr(sdk._default, "_opened", {})
    said = []
    for line in blocks("console")[0].splitlines():
        arguments = shlex.split(line.removeprefix("$ loractl ").replace("./base", "./model"))
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        said.append(result.stdout)
    sdk._default.close()
    assert said[0].startswith("zh@v1")
    assert said[1].startswith("zh: ok")
    assert "PRB" not in said[1]


# --- the page -------------------------------------------------------------------------------------


def test_the_settings_of_the_page_are_understood(place: Path) -> None:
    (text,) = blocks("toml")
    known = tomllib.loads(text)["tool"]["loractl"]["validate"]["baseline"]
    (place / "pyproject.toml").write_text(text)
    command = [BIN / "loractl", "validate", "adapters/zh/"]
    missing = subprocess.run(command, capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert known in missing.stderr
    shutil.copy(place / "pyproject.toml", place / "kept.toml")
    (place / "pyproject.toml").unlink()
    subprocess.run([*command, "--write-baseline", known], check=True, capture_output=True)
    shutil.move(place / "kept.toml", place / "pyproject.toml")
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    # No fingerprint is recorded for a plain folder, and the settings ask for level bf16.
    assert found.returncode == 3, found.stdout
