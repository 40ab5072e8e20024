"""Every kernel compiles for the GPUs that are in use, and none spills registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_no_kernel_spills(capability: int, tmp_path: Path) -> None:
    environment = {
        "PYTHONPATH": str(HERE.parents[1] / "kernels"),
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "ahead_of_time.py"), str(capability)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kernels) >= 24
    assert [kernel for kernel in kernels if kernel["stack"] or kernel["local"]] == []
    assert all(kernel["registers"] <= 255 for kernel in kernels)
