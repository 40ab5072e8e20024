"""What goes past the page cache is the same bytes, wherever it begins and whatever refuses."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch

from lowrank_cases import Case, part, write_base
from rankloom.apply import direct
from rankloom.apply.direct import PAGE, Pages
from rankloom.apply.transfer import LocalSink, LocalSource, view_bytes
from rankloom.composition import compose

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore:BASE001:rankloom.errors.RankloomWarning"),
    pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="every file goes through the cache"),
]


class Watched:
    """``os.pwrite`` that notes the bytes past the cache, and answers as a file system might.

    Args:
        refuse: number of the first transfer that is refused.
        most: bytes of one transfer.
    """

    def __init__(self, refuse: int | None = None, most: int | None = None) -> None:
        self.lengths: list[int] = []
        self._refuse, self._most, self._real = refuse, most, os.pwrite

    def __call__(self, descriptor: int, data: memoryview, offset: int) -> int:
        if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            return self._real(descriptor, data, offset)
        if self._refuse is not None and len(self.lengths) >= self._refuse:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.lengths.append(self._real(descriptor, data[: self._most], offset))
        return self.lengths[-1]


def written(path: Path, step: int, *, first: int = 1237) -> tuple[bytes, bytes]:
    """Write tiles of ``step`` numbers with four threads; return what is there and what should."""
    values = torch.arange(300_000, dtype=torch.int32) * 40503
    expected = bytes(first) + values.numpy().tobytes()
    sink = LocalSink(path, len(expected))

    def write(start: int) -> None:
        tile = values[start : start + step]
        offset = first + 4 * start
        held = Pages(4 * step).tile(1, len(tile), torch.int32, offset).copy_(tile)
        sink.write_at(view_bytes(held), offset)

    starts = list(range(0, len(values), step))
    random.Random(step).shuffle(starts)  # noqa: S311 - any order
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, starts))
    sink.finish()
    sink.close()
    return path.read_bytes(), expected


@pytest.mark.parametrize("first", [0, 8, PAGE - 4, 1236, 1237])
@pytest.mark.parametrize("step", [20_000, 32_768, 100_003])
def test_tiles_that_begin_anywhere_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, first: int
) -> None:
    watched = Watched()
    monkeypatch.setattr(os, "pwrite", watched)
    found, expected = written(tmp_path / "file", step, first=first)
    assert found == expected
    if first % 4:  # a number that lies across two in memory
        assert not watched.lengths
    else:
        edges = 2 * PAGE * (len(expected) // (4 * step) + 1)
        assert sum(watched.lengths) >= len(expected) - first - edges
        assert all(length % PAGE == 0 for length in watched.lengths)


@pytest.mark.parametrize("refuse", [0, 3])
def test_a_file_system_that_refuses_gets_the_bytes_through_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuse: int
) -> None:
    watched = Watched(refuse)
    monkeypatch.setattr(os, "pwrite", watched)
    found, expected = written(tmp_path / "file", 32_768, first=8)
    assert found == expected
    assert len(watched.lengths) <= refuse + 3  # those that were under way


def test_a_file_system_that_knows_no_other_way_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, watched = os.open, Watched()

    def opened(path: Path, flags: int, *rest: Any) -> int:  # noqa: ANN401
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "pwrite", watched)
    found, expected = written(tmp_path / "file", 32_768, first=8)
    assert found == expected
    assert not watched.lengths


def test_a_transfer_that_ends_early_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(most=PAGE + 512)  # what follows lies in no whole page any more
    monkeypatch.setattr(os, "pwrite", watched)
    found, expected = written(tmp_path / "file", 32_768, first=8)
    assert found == expected
    assert watched.lengths


@pytest.mark.parametrize("refuse", [None, 0, 1])
def test_what_is_copied_goes_past_the_cache_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuse: int | None
) -> None:
    content = random.Random(0).randbytes(9 << 20)  # noqa: S311 - any bytes
    (tmp_path / "old").write_bytes(content)
    watched = Watched(refuse)
    monkeypatch.setattr(os, "pwrite", watched)
    source, sink = LocalSource(tmp_path / "old"), LocalSink(tmp_path / "new", len(content))
    sink.copy_from(source, 1000, 77, len(content) - 1000)  # three pieces, and odd ends
    sink.copy_from(source, 0, 0, 77)
    for one in (source, sink):
        one.close()
    assert (tmp_path / "new").read_bytes()[:-923] == content[:77] + content[1000:]
    whole = (len(content) - 923) // PAGE * PAGE - PAGE
    assert sum(watched.lengths) == (whole if refuse is None else refuse * ((4 << 20) - PAGE))


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_a_checkpoint_has_the_same_bytes_either_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str | None
) -> None:
    shapes = {"model.layers.0.mlp.up_proj": (96, 200), "model.layers.0.mlp.down_proj": (200, 96)}
    write_base(tmp_path / "base", shapes=shapes)
    composition = compose([part(Case(shapes).write(tmp_path / "adapter"))])
    for name, least in (("past", PAGE), ("through", 1 << 40)):
        watched = Watched()
        monkeypatch.setattr(os, "pwrite", watched)
        monkeypatch.setattr(direct, "LEAST", least)
        composition.apply_to(tmp_path / "base", tmp_path / name, dtype=dtype)
        assert bool(watched.lengths) == (name == "past")
        monkeypatch.undo()
    for path in (tmp_path / "past").iterdir():
        assert path.read_bytes() == (tmp_path / "through" / path.name).read_bytes()
