"""Makes memory that was allocated and not written visible: it reads as NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def poisoned_empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``torch.empty`` of a floating dtype is full of NaN, of bytes full of 0xFF."""
    real = torch.empty
    with torch.device("cpu"):  # torch notes once which functions obey a device; note the real one
        real(0)

    def empty(*size: Any, **options: Any) -> torch.Tensor:  # noqa: ANN401
        tensor = real(*size, **options)
        if tensor.is_meta:
            return tensor
        with torch.no_grad():
            if tensor.is_floating_point():
                return tensor.fill_(float("nan"))
            return tensor.fill_(255) if tensor.dtype == torch.uint8 else tensor

    monkeypatch.setattr(torch, "empty", empty)
    return
