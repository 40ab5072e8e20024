"""How fast something is when nothing else disturbs it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def fastest(action: Callable[[], object], rounds: int = 5) -> float:
    """Return the shortest of several runs in seconds.

    The machine of a test may be busy, which makes runs longer; the code is not slower for it.
    """
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)
