"""What every launch needs to know of a device."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Final

import torch
import triton.language as tl

ELEMENT: Final[dict[torch.dtype, Any]] = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}
"""What a kernel calls the elements of a tensor."""


def is_interpreted() -> bool:
    """Return whether Triton runs kernels on the CPU, to check their arithmetic."""
    return os.environ.get("TRITON_INTERPRET", "0") not in {"", "0"}


@cache
def processors(device: torch.device) -> int:
    """Return how many multiprocessors a device has; 2 where kernels are interpreted."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


def uses(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which launches go to that device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
