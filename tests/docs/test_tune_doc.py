"""The page on tuning: its examples run in their order."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs/tune.md").read_text()
LORACTL = Path(sys.executable).with_name("loractl")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    from base import find_base

    (tmp_path / "adapters").symlink_to(ROOT / "examples/adapters")
    (tmp_path / "minilm").symlink_to(find_base())
    monkeypatch.setenv("RANKLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RANKLOOM_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "score", raising=False)  # that of the examples
    yield tmp_path
    sys.modules.pop("score", None)


def test_the_examples_run_in_their_order(place: Path) -> None:
    for name, block in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOC, re.DOTALL):
        (place / name).write_text(block)
    [session] = re.findall(r"```python\n(from rankloom .*?)```", DOC, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(session, "tune.md", "exec"), names)  # noqa: S102 - our own text
    [line] = re.findall(r"```console\n\$ loractl (.*?)\n```", DOC)
    done = subprocess.run([LORACTL, *shlex.split(line), "--json"], check=False, capture_output=True)
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["found"] else 1)
    assert found["verdict"] == names["tuned"].verdict  # type: ignore[attr-defined]
    assert (place / "tune.svg").is_file()
    # What it is; the base, both alone and five compositions; what is compared, held out.
    assert (place / "tune.jsonl").read_text().count("\n") == 1 + 8 + 4


def test_the_command_scores_a_checkpoint(place: Path) -> None:
    for name, block in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOC, re.DOTALL):
        (place / name).write_text(block)
    [line] = re.findall(r"```sh\nloractl (.*?)\n```", DOC)
    words = shlex.split(line)
    _, program = shlex.split(words[words.index("--command") + 1])
    done = subprocess.run(
        [sys.executable, program, "./minilm"], check=True, capture_output=True, text=True
    )
    assert len(json.loads(done.stdout.splitlines()[-1])) == 3
