"""What the page on engines shows is what happens."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from engine_cases import CASES, arrays
from folders import base
from loractl.main import main

if TYPE_CHECKING:
    import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def test_the_example_gives_a_verdict_per_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CASES["rslora"].folder(tmp_path)
    base(tmp_path / "base", arrays())
    monkeypatch.chdir(tmp_path)
    line = block("console").removeprefix("$ loractl ").strip()
    ended = CliRunner().invoke(main, shlex.split(line))
    assert ended.exit_code == 1
    assert "vLLM 0.33.0: accept" in ended.output
    assert "SGLang 0.5.23: silent-wrong" in ended.output


def test_the_settings_name_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CASES["dora"].folder(tmp_path)
    (tmp_path / "pyproject.toml").write_text(block("toml"))
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(main, ["validate", "./adapter"])
    assert ended.exit_code == 1
    assert "vLLM 0.33.0: reject" in ended.output
