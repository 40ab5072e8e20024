from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tune_cases import adapters, network

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two adapters, and a home of our own."""
    monkeypatch.setenv("RANKLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RANKLOOM_URL", raising=False)
    return adapters(tmp_path)


@pytest.fixture
def model() -> nn.Module:
    """The base that they fit."""
    return network()
