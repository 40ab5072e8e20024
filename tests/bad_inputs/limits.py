"""What every row must keep to, whatever its outcome."""

from __future__ import annotations

import contextlib
import gc
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bad_inputs.bounded import Ended

SECONDS = 1.0
"""Of the processor, if nothing shares its core: what else the machine does is no mistake."""

WALL_SECONDS = 8.0
"""For what waits instead of working; a machine that does other things may need as long."""

BYTES = 256 << 20


def check_bounds(ended: Ended) -> None:
    """Fail if a command ended in a traceback, took long, or much memory."""
    assert "Traceback" not in ended.err + ended.out, ended.err
    _check(ended.seconds, ended.wall, ended.nbytes)


@contextlib.contextmanager
def bounds(processes: int = 1) -> Iterator[None]:
    """Fail if the block takes long, or much memory.

    Args:
        processes: how many there would be if client and server did not share this one.
    """
    gc.freeze()  # what earlier tests left is not looked through at this one's cost
    Path("/proc/self/clear_refs").write_text("5")  # the largest size is what it is now
    pace, before = _pace(), _resident("VmRSS")
    worked, start = time.process_time(), time.monotonic()
    yield
    seconds, wall = time.process_time() - worked, time.monotonic() - start
    _check(seconds / processes / max(pace, _pace()), wall, _resident("VmHWM") - before)


def _pace() -> float:
    """Return how many times longer work takes now than at best in this run of the tests."""
    _PACES.append(min(_worked() for _ in range(3)))
    return _PACES[-1] / min(_PACES)


def _worked() -> float:
    begin = time.thread_time()
    sorted(str(number) for number in range(10_000))
    return time.thread_time() - begin


_PACES: list[float] = []


def _check(seconds: float, wall: float, nbytes: int) -> None:
    assert seconds < SECONDS
    assert wall < WALL_SECONDS
    assert nbytes < BYTES


def _resident(field: str) -> int:
    found = re.search(
        rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    assert found
    return int(found[1]) << 10
