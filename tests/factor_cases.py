"""Deltas as factors, made by hand or by hypothesis, and their dense float64 truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import strategies as st

from rankloom.compose.factors.value import Factors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def make(
    out: int,
    into: int,
    rank: int,
    seed: int,
    *,
    steep: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> Factors:
    """Random factors; each column is ``10**steep`` times shorter than the one before it."""
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(out, rank, generator=generator, dtype=torch.float64)
    a = torch.randn(rank, into, generator=generator, dtype=torch.float64)
    return Factors((b * 10.0 ** (-steep * torch.arange(rank))).to(dtype), a.to(dtype))


def dense(factors: Factors) -> torch.Tensor:
    """The delta itself."""
    return factors.b.double() @ factors.a.double()


def total(parts: Sequence[Factors], coefficients: Sequence[float]) -> torch.Tensor:
    """Σ cₜ·Δₜ, dense."""
    pairs = zip(parts, coefficients, strict=True)
    return torch.stack([number * dense(part) for part, number in pairs]).sum(0)


def size(parts: Sequence[Factors], coefficients: Sequence[float]) -> float:
    """Σ |cₜ|·‖bⱼ‖·‖aⱼ‖ over all columns: what rounding errors are relative to."""
    return sum(
        abs(number) * float((part.b.double().norm(dim=0) * part.a.double().norm(dim=1)).sum())
        for part, number in zip(parts, coefficients, strict=True)
    )


@st.composite
def several(draw: st.DrawFn, smallest: int = 1, largest: int = 4) -> list[Factors]:
    """Deltas of one shape: any ranks, flat or steep spectra, some of them nearly the same."""
    out, into = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    count = draw(st.integers(smallest, largest))
    parts = [
        make(
            out,
            into,
            draw(st.integers(1, 8)),
            draw(st.integers(0, 1 << 20)),
            steep=draw(st.sampled_from([0.0, 0.5, 2.0])),
            dtype=draw(st.sampled_from([torch.float32, torch.float64])),
        )
        for _ in range(count)
    ]
    if count > 1 and draw(st.booleans()):
        first = parts[0]
        parts[-1] = Factors(first.b * draw(st.sampled_from([1.0, 0.3, 1.001])), first.a)
    return parts


numbers = st.floats(-4, 4, allow_nan=False).filter(lambda x: abs(x) > 1e-3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On matrices this small a second thread only waits, on a busy machine for long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
