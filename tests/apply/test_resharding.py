"""Checkpoints in files of another size than the base's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from lowrank_cases import Case, part, read_checkpoint, write_base
from rankloom.base.reader import read
from rankloom.composition import compose

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:BASE001:rankloom.errors.RankloomWarning")


@pytest.mark.parametrize("dtype", [None, "float32"])
@pytest.mark.parametrize("shard_bytes", [1, 5000, 1 << 20])
@pytest.mark.parametrize("shards", [1, 3])
def test_the_same_tensors_in_files_of_any_size(
    tmp_path: Path, shards: int, shard_bytes: int, dtype: str | None
) -> None:
    write_base(tmp_path / "base", shards=shards)
    Case().write(tmp_path / "adapter")
    composition = compose([part(tmp_path / "adapter")])
    composition.apply_to(tmp_path / "base", tmp_path / "same", dtype=dtype)
    out = tmp_path / "out"
    report = composition.apply_to(tmp_path / "base", out, dtype=dtype, shard_bytes=shard_bytes)
    expected, found = read_checkpoint(tmp_path / "same"), read_checkpoint(out)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    files = sorted(path.name for path in out.glob("*.safetensors"))
    if shard_bytes == 1 << 20:
        assert files == ["model.safetensors"]
        assert not list(out.glob("*.index.json"))
    else:
        index = json.loads((out / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(one.nbytes for one in found.values())
        assert set(index["weight_map"].values()) == set(files)
        assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
        sizes = [read(out).tensors[name].nbytes for name in found]
        assert len(files) == len(sizes) if shard_bytes == 1 else len(files) < len(sizes)
    assert read(out).tensors.keys() == found.keys()
    assert report.nbytes == sum(path.stat().st_size for path in out.iterdir())


def test_no_file_is_larger_than_was_asked_for(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    Case().write(tmp_path / "adapter")
    compose([part(tmp_path / "adapter")]).apply_to(
        tmp_path / "base", tmp_path / "out", shard_bytes=9000
    )
    for path in (tmp_path / "out").glob("*.safetensors"):
        tensors = [one for one in read(tmp_path / "out").tensors.values() if one.path == path]
        assert sum(one.nbytes for one in tensors) <= 9000 or len(tensors) == 1
