"""Adds deltas to weights that are stored in 8 or 4 bits: dequantise, add, quantise again.

No value is cut off. NF4, int8 and fp8 get new scales; where nothing is added, codes stay as they
are if the largest of each group has the largest code, as quantisers leave it. Groups of int4, whose
quantisers do not, keep their scales as long as those reach (:class:`~rankloom_kernels.int4.Int4`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Self, TypeAlias

import torch

from rankloom_kernels.backends import accepts, choose
from rankloom_kernels.gpu.tables import Job, factor_dtype
from rankloom_kernels.int4 import Int4
from rankloom_kernels.lowrank import merge_reference
from rankloom_kernels.separate import refuses_separate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom_kernels.backends import Backend
    from rankloom_kernels.terms import Term

NF4_CODES: Final = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""NormalFloat of 4 bits (QLoRA, arXiv 2305.14314, appendix E)."""

NF4_BLOCK: Final = 64
FP8_BLOCK: Final = 128


@dataclass(frozen=True, slots=True, eq=False)
class Nf4:
    """4-bit codes in blocks of 64 along a row, as bitsandbytes stores them without double scales.

    Attributes:
        codes: (out, in / 2) uint8, two elements in each, the first in the upper half.
        scale: (out, in / 64) float32, the largest magnitude of each block.
    """

    codes: torch.Tensor
    scale: torch.Tensor

    def __post_init__(self) -> None:
        out, width = self.shape
        _check(self.codes, (out, width // 2), torch.uint8)
        _check(self.scale, (out, width // NF4_BLOCK), torch.float32)
        if width % NF4_BLOCK:
            message = f"rows of {width} elements are no whole blocks of {NF4_BLOCK}"
            raise ValueError(message)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weight."""
        return self.codes.shape[0], self.codes.shape[1] * 2

    def dequantised(self) -> torch.Tensor:
        """Return the weight, (out, in) float32."""
        table = torch.tensor(NF4_CODES, device=self.codes.device)
        pairs = torch.stack([self.codes >> 4, self.codes & 15], dim=2)
        values = table[pairs.long()].view(*self.scale.shape, NF4_BLOCK)
        return (values * self.scale[:, :, None]).view(self.shape)

    def requantised(self, values: torch.Tensor) -> Self:
        """Return values of the weight's shape in this format; each to its nearest code."""
        blocks = values.view(*self.scale.shape, NF4_BLOCK)
        scale = blocks.abs().amax(2).float()
        limits = nf4_limits(values.device)
        places = torch.zeros(blocks.shape, dtype=torch.uint8, device=values.device)
        for limit in limits:
            places += blocks > (limit * scale)[:, :, None]
        places = torch.where(scale[:, :, None] > 0, places, 7).view(self.shape)
        return type(self)((places[:, ::2] << 4) | places[:, 1::2], scale)


def nf4_limits(device: torch.device) -> torch.Tensor:
    """Return the middles of neighbouring codes, (15,) float32."""
    codes = torch.tensor(NF4_CODES, device=device)
    return (codes[1:] + codes[:-1]) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Int8:
    """8-bit whole numbers with one scale for each row: LLM.int8 (arXiv 2208.07339), per channel.

    Attributes:
        codes: (out, in) int8, from -127 to 127.
        scale: (out, 1) float32; the weight is ``codes · scale``.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    largest: ClassVar[float] = 127.0

    def __post_init__(self) -> None:
        _check(self.codes, self.shape, torch.int8)
        _check(self.scale, (self.shape[0], 1), torch.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weight."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def group(self) -> tuple[int, int]:
        """Rows and columns that share a scale."""
        return 1, max(1, self.shape[1])

    def dequantised(self) -> torch.Tensor:
        """Return the weight, (out, in) float32."""
        return self.codes.float() * self.scale

    def requantised(self, values: torch.Tensor) -> Self:
        """Return values of the weight's shape in this format; each to its nearest code."""
        scale, inverse = scales(values.abs().amax(1, keepdim=True).float(), self.largest)
        codes = (values * inverse).round().clamp(-self.largest, self.largest)
        return type(self)(codes.to(torch.int8), scale)


@dataclass(frozen=True, slots=True, eq=False)
class Fp8:
    """8-bit floating-point numbers (e4m3) with one scale, or one for each 128 x 128 block.

    Attributes:
        codes: (out, in) float8_e4m3fn.
        scale: (1, 1), or (⌈out / 128⌉, ⌈in / 128⌉), float32; the weight is ``codes · scale``.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    largest: ClassVar[float] = 448.0

    def __post_init__(self) -> None:
        _check(self.codes, self.shape, torch.float8_e4m3fn)
        blocks = (-(-self.shape[0] // FP8_BLOCK), -(-self.shape[1] // FP8_BLOCK))
        _check(self.scale, (1, 1) if self.scale.numel() == 1 else blocks, torch.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weight."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def group(self) -> tuple[int, int]:
        """Rows and columns that share a scale."""
        if self.scale.numel() == 1:
            return max(1, self.shape[0]), max(1, self.shape[1])
        return FP8_BLOCK, FP8_BLOCK

    def dequantised(self) -> torch.Tensor:
        """Return the weight, (out, in) float32."""
        return self.codes.float() * self._spread(self.scale)

    def requantised(self, values: torch.Tensor) -> Self:
        """Return values of the weight's shape in this format; each to its nearest code."""
        high, wide = self.group
        bands = [band.abs().amax(0) for band in torch.split(values, high)]
        groups = [torch.stack([part.amax() for part in torch.split(band, wide)]) for band in bands]
        amax = torch.stack(groups)
        scale, inverse = scales(amax.float(), self.largest)
        codes = (values * self._spread(inverse)).clamp(-self.largest, self.largest)
        return type(self)(codes.to(torch.float8_e4m3fn), scale)

    def _spread(self, groups: torch.Tensor) -> torch.Tensor:
        high, wide = self.group
        rows = groups.repeat_interleave(high, 0)[: self.shape[0]]
        return rows.repeat_interleave(wide, 1)[:, : self.shape[1]]


Quantised: TypeAlias = Nf4 | Int8 | Fp8 | Int4


def scales(amax: torch.Tensor, largest: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what codes are multiplied with, and what values are, 1 where all are 0; float32."""
    counts = torch.where(amax > 0, amax, largest)
    return counts / largest, largest / counts


def _check(tensor: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tensor.shape != shape or tensor.dtype != dtype:
        message = f"{tuple(tensor.shape)} {tensor.dtype} where {shape} {dtype} is needed"
        raise ValueError(message)


@torch.no_grad()
def merge_quantised_(
    weight: Quantised, terms: Sequence[Term], *, backend: Backend | None = None
) -> Quantised:
    """Add low-rank deltas to a quantised weight in place; codes and scales change.

    Semantics: ``weight ← requantise(dequantise(weight) + Σ cᵢ · bᵢ @ aᵢ)``, summed in float32. The
    result is the nearest code, but for sums that lie within float32's error of the middle of two.
    Torch holds the weight in float32 meanwhile; Triton holds nothing, and reads the codes once
    (NF4) or twice.

    Args:
        weight: contiguous.
        terms: deltas of the same shape on the same device.
        backend: default: Triton on an NVIDIA GPU where it can, else torch.

    Returns:
        ``weight``.

    Raises:
        ValueError: shapes differ, or there are no terms.
        BackendError: the backend that was asked for cannot do it; says why.
    """
    if not terms or {term.shape for term in terms} != {weight.shape}:
        message = f"weight {weight.shape}, deltas {[term.shape for term in terms]}"
        raise ValueError(message)

    def refuses() -> str | None:
        read = (weight.words,) if isinstance(weight, Int4) else (weight.codes, weight.scale)
        if not all(tensor.is_contiguous() for tensor in read):
            return "its kernels need codes and scales that are contiguous"
        device = weight.codes.device
        if reason := refuses_separate(terms, device, asked=backend is not None):
            return reason
        from rankloom_kernels.gpu.check import quantised_differs

        factors = factor_dtype([Job(weight.codes, weight.codes, tuple(terms))])
        kind = weight.layout if isinstance(weight, Int4) else type(weight).__name__
        return quantised_differs(device, kind, factors)

    if choose(backend, {"triton": refuses, "torch": accepts}) == "triton":
        from rankloom_kernels.gpu.quantised import add_quantised

        add_quantised(weight, terms)
        return weight
    total = merge_reference(weight.dequantised(), terms, dtype=torch.float32)
    new = weight.requantised(total)
    weight.codes.copy_(new.codes)
    weight.scale.copy_(new.scale)
    if isinstance(weight, Int4) and isinstance(new, Int4):
        weight.zero.copy_(new.zero)
    return weight
