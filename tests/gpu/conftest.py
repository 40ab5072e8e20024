"""The GPU that is checked; without one this run ends at once, it does not skip.

With ``TRITON_INTERPRET=1`` the same checks run on the CPU, on smaller matrices: that shows that
they can run, and nothing about a GPU.
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

if INTERPRETED:
    import interpreted  # noqa: F401 - bfloat16 as on a GPU


def pytest_configure() -> None:
    if not INTERPRETED and not torch.cuda.is_available():
        pytest.exit("no CUDA device: run this on a machine with one", returncode=1)


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture(scope="session")
def large() -> tuple[int, int]:
    """Shape of a matrix with as many elements as real ones have."""
    return (128, 192) if INTERPRETED else (14336, 4096)
