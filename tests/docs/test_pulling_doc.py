"""The examples of the page on pulling run, and its errors are those of the library."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from adapter_folder import write_adapter, write_base
from rankloom.client import Client
from rankloom.errors import error_class
from rankloom_server.settings import Settings
from servers import served

DOC = (Path(__file__).parents[2] / "docs/pulling.md").read_text()
LORACTL = Path(sys.executable).with_name("loractl")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC, re.DOTALL)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANKLOOM_HOME", str(tmp_path / "home"))
    with served(Settings(data_dir=tmp_path / "served")) as (url, token):
        monkeypatch.setenv("RANKLOOM_URL", url)
        monkeypatch.setenv("RANKLOOM_TOKEN", token)
        with Client() as client:
            adapter, base = write_adapter(tmp_path / "zh"), write_base(tmp_path / "base")
            client.push(adapter, "zh-lang", base=base, alias="prod")
        lines = [line for block in blocks("console") for line in block.splitlines()]
        for line in lines:
            command = shlex.split(line.removeprefix("$ "), comments=True)
            assert command[0] == "loractl"
            subprocess.run([LORACTL, *command[1:]], check=True, capture_output=True)
        assert len(lines) == 6
    assert (tmp_path / "mine/adapter_model.safetensors").is_file()
    (block,) = blocks("python")
    names: dict[str, Path] = {}
    exec(compile(block, "pulling.md", "exec"), names)  # noqa: S102 - our own text
    assert (names["folder"] / "adapter_model.safetensors").is_file()


def test_errors_have_the_codes_that_the_page_says() -> None:
    rows = re.findall(r"\| `([a-z-]+)` \| (\d+) \|", DOC)
    assert len(rows) == 6
    for code, exit_code in rows:
        assert error_class(code).code == code
        assert error_class(code).exit_code == int(exit_code)
