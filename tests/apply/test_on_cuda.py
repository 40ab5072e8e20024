"""Applying on a GPU: what is refused without one; the crossing itself is in test_kinds.py."""

from __future__ import annotations

import pytest
import torch

from rankloom.apply.executors import find_device, find_executor
from rankloom.errors import BackendUnavailableError, RefError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two of them, as far as torch says."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_without_a_gpu_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendUnavailableError, match="sees 0 CUDA GPUs, and cuda was asked for"):
        find_executor("cuda")


@pytest.mark.usefixtures("gpus")
def test_a_gpu_goes_by_its_number() -> None:
    assert find_device("cuda") == torch.device("cuda", 0)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(BackendUnavailableError, match="sees 2 CUDA GPUs, and cuda:2 was asked for"):
        find_device("cuda:2")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1"])
def test_what_names_no_gpu(name: str) -> None:
    with pytest.raises(RefError, match="names no GPU"):
        find_executor(name)
