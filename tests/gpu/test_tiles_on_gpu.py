"""A tensor on its way to a device and back, tile by tile, while others are read and written."""

from pathlib import Path

import pytest
import torch

from change_cases import entries, random, target
from rankloom.adapter.change import LowRank
from rankloom.apply.compute import carry_out
from rankloom.apply.lanes import Tiles
from rankloom.apply.placed import Contribution, Placed
from rankloom.apply.steps import Compute
from rankloom.apply.stores import Sources
from rankloom.apply.transfer import Source
from rankloom.base.model import Piece

ROWS, TILE = 1000, 64


class Memory:
    """Keeps what is written, and where."""

    def __init__(self, size: int) -> None:
        self.held, self.writes = bytearray(size), 0

    def write_at(self, data: memoryview, offset: int) -> None:
        self.held[offset : offset + len(data)] = data
        self.writes += 1

    def copy_from(self, source: Source, start: int, offset: int, count: int) -> None:
        raise NotImplementedError

    def finish(self) -> str:
        raise NotImplementedError

    def digest(self) -> str:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("width", [96, 4096])
def test_every_row_comes_back_changed_and_where_it_was(
    width: int, tmp_path: Path, device: torch.device
) -> None:
    weight = (random(ROWS, width) * 0.02).bfloat16()
    b, a = random(ROWS, 16, seed=1) * 0.02, random(16, width, seed=2) * 0.02
    found = entries(tmp_path / "all.safetensors", weight=weight, a=a, b=b)
    entry, piece = found["weight"], Piece(found["weight"])
    formula = target("weight", (0.5, LowRank(found["a"], found["b"], 2.0))).formula
    change = Contribution(piece, (piece,), entry.shape, formula)
    placed = Placed("weight", entry, entry.dtype, entry.shape, (change,), entry.path)
    tiles, sink = Tiles.through(device, TILE * width * 4), Memory(entry.end)
    with tiles.active():
        assert carry_out(Compute(entry, entry, placed), Sources(), sink, tiles)
    assert len(tiles.lanes) == 2
    assert sink.writes > 2 * len(tiles.lanes)  # each lane is taken again, and again
    result = torch.frombuffer(sink.held[entry.start :], dtype=torch.bfloat16).view(ROWS, width)
    truth = weight.double() + b.double() @ a.double()
    # Sums in float32, so that at most one in ten thousand is rounded to the other neighbour.
    assert (result != truth.bfloat16()).double().mean() <= 1e-4
    step = torch.finfo(torch.bfloat16).eps * truth.abs()
    assert ((result.double() - truth).abs() <= step + 1e-7).all()
