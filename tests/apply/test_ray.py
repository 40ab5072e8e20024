"""Three machines of a Ray cluster, of which one is lost, write what one process writes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import ray_world
from lowrank_cases import Case, part, write_base
from rankloom.composition import compose
from s3_cases import contents, local, new_url, uploaded

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.filterwarnings("ignore:BASE001")]


def test_a_machine_that_is_lost_in_a_file_costs_nothing_but_time(client: S3Client) -> None:
    # Ray's sockets have paths of at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-") as name:
        folder = Path(name)
        write_base(folder / "base", shards=6)
        Case(rank=4).write(folder / "adapter")
        pool = compose([part(folder / "adapter")], [0.8]).apply_to(
            folder / "base", folder / "pool", on="processes", workers=2, digest=True
        )
        url, target = uploaded(client, folder / "base"), new_url()
        command = [sys.executable, ray_world.__file__, name, url, target]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
        said = json.loads(done.stdout.splitlines()[-1])
        assert said == {"digests": [pool.digest] * 2, "writers": 3, "left": []}
        assert local(folder / "ray-out") == contents(client, target) == local(folder / "pool")
        assert not list(folder.glob(".ray-out*"))
