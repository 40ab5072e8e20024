"""A serving loop in several threads while compositions are swapped under it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import torch

from live_models import UNCHECKED, bits, llama, same, targets
from lowrank_cases import Case, part
from rankloom.apply.live.turns import Turns
from rankloom.composition import compose
from rankloom.errors import ConflictError

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.apply.live.handle import Handle

pytestmark = pytest.mark.filterwarnings(UNCHECKED)
WAIT = 20
"""Seconds that nothing takes unless threads wait for each other for ever."""


def test_readers_see_one_composition_and_never_a_part(tmp_path: Path) -> None:
    model = llama()
    shapes = targets(model, "q_proj", "down_proj")
    folders = [Case(shapes, seed=n).write(tmp_path / str(n)) for n in range(3)]
    compositions = [compose([part(folder)]) for folder in folders]
    kept = bits(model)
    expected = {None: kept}
    for one in compositions:
        with one.apply(model):
            expected[one] = bits(model)
    done = threading.Event()

    def serve(handle: Handle) -> set[object]:
        seen = set()
        while not done.is_set():
            with handle.reading() as composition:
                assert same(model, expected[composition])
                seen.add(composition)
        return seen

    with compositions[0].apply(model) as handle, ThreadPoolExecutor(3) as pool:
        loops = [pool.submit(serve, handle) for _ in range(3)]
        try:
            for step in range(150):
                handle.swap([None, *compositions][step % 4])
        finally:
            done.set()
        seen = set.union(*[loop.result(WAIT) for loop in loops])
    assert len(seen) > 1
    assert same(model, kept)


def test_a_writer_goes_before_readers_that_come_later() -> None:
    turns, order = Turns(torch.device("cpu")), []
    inside, leave = threading.Event(), threading.Event()

    def read_first() -> None:
        with turns.reading():
            inside.set()
            assert leave.wait(WAIT)
            with turns.reading():  # does not wait for the writer, who waits for this thread
                order.append("within")

    def write() -> None:
        with turns.writing():
            order.append("write")

    def read_later() -> None:
        with turns.reading():
            order.append("later")

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(read_first)
        assert inside.wait(WAIT)
        writer = pool.submit(write)
        until(lambda: turns._writers_waiting == 1)
        later = pool.submit(read_later)
        time.sleep(0.02)  # enough for a reader that does not wait
        leave.set()
        for thread in (first, writer, later):
            thread.result(WAIT)
    assert order == ["within", "write", "later"]


def until(holds: object) -> None:
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_thread_that_reads_cannot_swap(tmp_path: Path) -> None:
    model = llama()
    composition = compose([part(Case(targets(model, "q_proj")).write(tmp_path / "one"))])
    kept = bits(model)
    with composition.apply(model) as handle:
        with handle.reading(), pytest.raises(ConflictError, match="wait for itself"):
            handle.swap(None)
        handle.swap(None)
        assert same(model, kept)
