"""How many threads torch computes with."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread.

    A sum that is split among threads may differ in its last bit. And factors are small: each
    operation on them waits for its slowest thread, so saving a 7B model's pair took 1.4 s on one
    thread, and 18 s on two of a machine that had something else to do.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
