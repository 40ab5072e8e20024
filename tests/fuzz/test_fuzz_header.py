"""The short form of ``make fuzz``: half a minute of headers, read by us and by safetensors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = 30


@pytest.mark.slow
def test_what_we_accept_is_what_safetensors_reads(tmp_path: Path) -> None:
    options = [f"-max_total_time={SECONDS}", "-timeout=5", f"-dict={HERE / 'header.dict'}"]
    command = [sys.executable, HERE / "header_target.py", *options, tmp_path, HERE / "seeds"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    (last,) = re.findall(r"^#(\d+)\s+DONE", done.stderr, re.MULTILINE)
    assert int(last) > 10_000


def test_the_seeds_are_files_that_both_read() -> None:
    """The fuzzer begins with accepted files; otherwise it would compare nothing."""
    code = (
        "import header_target as t, pathlib\n"
        "for seed in pathlib.Path('seeds').iterdir():\n"
        "    file = t.file_of(seed.read_bytes())\n"
        "    assert t.parse_header(file, len(file), seed).tensors\n"
        "    t.check(seed.read_bytes())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=HERE, check=True, capture_output=True)


def test_the_fuzzer_can_fail() -> None:
    """A reader that lost a tensor would be caught by the first seed."""
    code = (
        "import dataclasses, pathlib, header_target as t\n"
        "real = t.parse_header\n"
        "t.parse_header = lambda *a: dataclasses.replace(real(*a), tensors={})\n"
        "t.check(pathlib.Path('seeds/file').read_bytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, check=False, capture_output=True, text=True
    )
    assert "AssertionError" in done.stderr
