"""The GPU that is checked; without one this run fails, it does not skip."""

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.fail("no CUDA device: run this on a machine with one")
    return torch.device("cuda")
