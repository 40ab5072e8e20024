"""The page on many machines: its examples run, and its digest is what they print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lowrank_cases import Case, part, write_base
from rankloom.composition import compose

PAGE = (Path(__file__).parents[2] / "docs" / "machines.md").read_text()


@pytest.mark.filterwarnings("ignore:BASE001")
def test_the_examples_agree_on_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_base(tmp_path / "base")
    Case().write(tmp_path / "adapter")
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, {"composition": compose([part(tmp_path / "adapter")])})  # noqa: S102 - our own page
    digest = capsys.readouterr().out.strip()
    local, _, check = re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)
    program, *arguments = local.split()
    command = [Path(sys.executable).with_name(program), *arguments]
    assert digest in subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)
    printed = subprocess.check_output(check, shell=True, text=True)  # noqa: S602
    assert digest == f"sha256:{printed.split()[0]}"
