"""Every example of the README, run as it stands, in a folder as a new user has it."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
LORACTL = Path(sys.executable).with_name("loractl")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from base import find_base

    shutil.copytree(ROOT / "examples/adapters", tmp_path / "adapters")
    (tmp_path / "minilm").symlink_to(find_base())
    monkeypatch.setenv("RANKLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RANKLOOM_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_of_the_tour_runs(place: Path) -> None:
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - our own text
    assert (place / "merged/model.safetensors").is_file()
    assert (place / "de-search/adapter_model.safetensors").is_file()


def test_the_commands_of_the_tour_run(place: Path) -> None:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    commands = [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]
    ran = 0
    for command in commands:
        if command[0] == "make":
            target = command[1]
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            continue
        assert command[0] == "loractl"
        subprocess.run([LORACTL, *command[1:]], check=True)
        ran += 1
    assert ran >= 8
    assert (place / "merged-2/model.safetensors").is_file()
