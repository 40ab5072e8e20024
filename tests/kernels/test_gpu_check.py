"""The check for GPU machines, as far as it can be run without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(*arguments: str, interpret: str) -> tuple[int, str]:
    environment = {
        "PYTHONPATH": os.pathsep.join(
            str(ROOT / name) for name in ("kernels", "sdk", "benchmarks")
        ),
        "TRITON_INTERPRET": interpret,
        "PYTEST_ADDOPTS": "-p no:randomly",
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_fails_and_says_so() -> None:
    for arguments in (
        ("benchmarks/gpu_merge.py",),
        ("-m", "pytest", "-c", "tests/gpu/pytest.ini", "--rootdir", "tests/gpu", "tests/gpu"),
    ):
        code, said = run(*arguments, interpret="0")
        assert code == 1
        assert "no CUDA device: run this on a machine with one" in said
        assert "Traceback" not in said


def test_all_of_it_runs_in_the_interpreter_and_reports_no_figure() -> None:
    written = set((ROOT / "benchmarks/results").iterdir())
    code, said = run("benchmarks/gpu_merge.py", interpret="1")
    assert code == 0, said
    assert said.count("ran in the interpreter") == 16
    assert set((ROOT / "benchmarks/results").iterdir()) == written
