"""The short form of the soak; ``python tests/fault_soak.py`` is the long one."""

import json
import sys
from pathlib import Path

import pytest

import fault_soak
from servers import Postgres, S3Server


@pytest.mark.services
@pytest.mark.slow
def test_nothing_is_lost_whatever_breaks(
    postgres: Postgres, seaweedfs: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = fault_soak.run(postgres, seaweedfs, tmp_path, operations=10_000, seconds=20)
    with capsys.disabled():
        sys.stdout.write(f"\nsoak: {json.dumps(found)}\n")
    assert found["broken promises"] == []
    # A run in which nothing went right, or nothing wrong, would prove nothing.
    done = found["outcomes"]
    assert min(done.get(f"{kind} done", 0) for kind in ("push", "pull", "alias")) >= 10
    assert found["kills of a server"] >= 3
    assert all(sum(faults.values()) >= 3 for faults in found["faults between"].values())
    assert found["collector"]["deleted"] >= 1
