"""Kinds that train a few coefficients of the delta's spectrum, at places drawn by a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rankloom.change.kinds.shapes import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    Tensors = Mapping[str, torch.Tensor]
    Options = Mapping[str, Any]


def fourierft(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """ΔW = scale · Re(F⁻¹(S)), S zero but for the trained coefficients (arXiv 2405.03003).

    Args:
        tensors: ``spectrum`` (n,).
        options: ``seed`` of the places, ``scale``.
        weight: gives the shape (out, in).
    """
    scale: float = options["scale"]
    delta: torch.Tensor = torch.fft.ifft2(_coefficients(tensors, options, weight)).real
    return scale * delta


def waveft(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """ΔW = scale · inverse Haar transform of the sparse coefficients (arXiv 2505.12532).

    Without the transform ΔW is the coefficients themselves.

    Args:
        tensors: ``spectrum`` (n,).
        options: ``seed`` of the places, ``scale``, ``transform``.
        weight: gives the shape (out, in).
    """
    scale: float = options["scale"]
    coefficients = _coefficients(tensors, options, weight)
    return scale * (_inverse_haar(coefficients) if options["transform"] else coefficients)


def _coefficients(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """Return the sparse spectrum, its places as PEFT draws them from torch's generator."""
    spectrum = tensors["spectrum"]
    what = f"the adapter has {len(spectrum)} coefficients, the base {tuple(weight.shape)}"
    require(weight.ndim == 2 and len(spectrum) <= weight.numel(), what)
    generator = torch.Generator().manual_seed(options["seed"])
    dense = torch.zeros_like(weight).flatten()
    dense[torch.randperm(weight.numel(), generator=generator)[: len(spectrum)]] = spectrum
    return dense.view(weight.shape)


def _inverse_haar(coefficients: torch.Tensor) -> torch.Tensor:
    """Undo one level of Haar's transform.

    The quarters are the average of 2 × 2 elements and their differences down, across and both. A
    side of odd length gets one more row or column, which is cut off again.
    """
    rows, columns = coefficients.shape
    padded = torch.nn.functional.pad(coefficients, (0, columns % 2, 0, rows % 2))
    top, bottom = padded.chunk(2)
    (average, down), (across, both) = top.chunk(2, dim=1), bottom.chunk(2, dim=1)
    first = torch.stack([average + down + across + both, average + down - across - both], dim=2)
    second = torch.stack([average - down + across - both, average - down - across + both], dim=2)
    pairs = torch.stack([first.flatten(1), second.flatten(1)], dim=1) / 2
    return pairs.flatten(0, 1)[:rows, :columns]
