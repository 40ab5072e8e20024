"""The page on composition: its table is the methods, its examples run in their order."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs/composition.md").read_text()
LORACTL = Path(sys.executable).with_name("loractl")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from base import find_base

    (tmp_path / "adapters").symlink_to(ROOT / "examples/adapters")
    (tmp_path / "minilm").symlink_to(find_base())
    monkeypatch.setenv("RANKLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RANKLOOM_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_is_the_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from methods_table import written

    assert written(DOC) == DOC, "run scripts/methods_table.py"


@pytest.mark.filterwarnings("ignore::rankloom.errors.RankloomWarning")
def test_the_examples_run_in_their_order(place: Path) -> None:
    names: dict[str, object] = {}
    ran = 0
    for language, block in re.findall(r"```(\w+)\n(.*?)```", DOC, re.DOTALL):
        if language == "python":
            exec(compile(block, "composition.md", "exec"), names)  # noqa: S102 - our own text
        elif language == "yaml":
            (place / block.partition("\n")[0].removeprefix("# ")).write_text(block)
        else:
            for line in block.splitlines():
                command = shlex.split(line.removeprefix("$ loractl "))
                subprocess.run([LORACTL, *command], check=True, stdout=subprocess.DEVNULL)
                ran += 1
    assert ran >= 9
    made = [place / name / "adapter_model.safetensors" for name in ("from-recipe", "made-again")]
    assert made[0].read_bytes() == made[1].read_bytes()
