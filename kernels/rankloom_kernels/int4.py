"""4-bit whole numbers in groups: the form that GPTQ, AWQ and compressed-tensors have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import torch

PER_WORD: Final = 8
"""Codes in an int32 word."""

IN_ORDER: Final = (0, 1, 2, 3, 4, 5, 6, 7)
INTERLEAVED: Final = (0, 4, 1, 5, 2, 6, 3, 7)
"""Place in a word of each of 8 elements, in half bytes from the lowest; AWQ has the second."""

_LARGEST: Final = 15


@dataclass(frozen=True, slots=True, eq=False)
class Int4:
    """4-bit whole numbers in groups along a row; the weight is ``(code - zero) · scale``.

    A group keeps its scale and zero where no sum lies more than half a step beyond its codes:
    numbers to which nothing is added stay as they are, and others are rounded once. Else it gets
    the smallest scale that reaches all sums and 0. So nothing is cut off, and no element is further
    from its sum than half a step of its group; but what is smaller than that may add nothing.

    Attributes:
        codes: (out, ⌈in / 8⌉) int32, 8 elements of a row in a word, in order, the first lowest; or
            (⌈out / 8⌉, in), 8 elements of a column, interleaved. It or its transpose is contiguous.
        scale: (out, groups) float16, bfloat16 or float32.
        zero: (out, groups) uint8, from 0 to 15: the code of 0.
        group: (in,) int32, of each column; in any order, as GPTQ's ``g_idx``.
        zeros: the lowest and highest zero that can be stored; one number twice if it is implied.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    group: torch.Tensor
    zeros: tuple[int, int] = (0, _LARGEST)

    def __post_init__(self) -> None:
        out, width = self.shape
        by_row, by_column = (out, -(-width // PER_WORD)), (-(-out // PER_WORD), width)
        wrong = [
            f"{name} {tuple(tensor.shape)} {tensor.dtype}"
            for name, tensor, shapes, dtypes in (
                ("codes", self.codes, (by_row, by_column), {torch.int32}),
                ("scale", self.scale, (self.scale.shape,), _FLOATS),
                ("zero", self.zero, (self.scale.shape,), {torch.uint8}),
                ("group", self.group, ((width,),), {torch.int32}),
            )
            if tensor.shape not in shapes or tensor.dtype not in dtypes
        ]
        if wrong:
            message = f"{', '.join(wrong)}: not of one weight of {out} x {width}"
            raise ValueError(message)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weight."""
        return self.scale.shape[0], self.group.shape[0]

    @property
    def is_by_column(self) -> bool:
        """Whether a word holds elements of a column, as AWQ's do."""
        out, width = self.shape
        return self.codes.shape != (out, -(-width // PER_WORD))

    @property
    def is_turned(self) -> bool:
        """Whether words of a column lie together in memory, as GPTQ's and AWQ's do."""
        return not self.codes.is_contiguous()

    @property
    def layout(self) -> str:
        """How codes are packed and lie in memory, in words."""
        turned = ", turned" if self.is_turned else ""
        return f"Int4 by {'column' if self.is_by_column else 'row'}{turned}"

    @property
    def words(self) -> torch.Tensor:
        """The codes as they lie in memory."""
        return self.codes.T if self.is_turned else self.codes

    def dequantised(self) -> torch.Tensor:
        """Return the weight, (out, in) float32; exact."""
        zero, scale = self._spread(self.zero.float()), self._spread(self.scale.float())
        return (self._elements() - zero) * scale

    def requantised(self, values: torch.Tensor) -> Self:
        """Return float32 values of the weight's shape in this format; each to its nearest code."""
        index = self.group.long().expand(self.shape)
        nothing = values.new_zeros(self.scale.shape)
        low = nothing.scatter_reduce(1, index, values, "amin")
        high = nothing.scatter_reduce(1, index, values, "amax")
        scale, zero = self.grid(low, high)
        places = values * self._spread(inverse(scale)) + self._spread(zero.float())
        codes = places.round().clamp(0, _LARGEST).nan_to_num().to(torch.int32)
        words = pack(codes.T, INTERLEAVED).T if self.is_by_column else pack(codes, IN_ORDER)
        as_before = torch.empty_like(self.codes).copy_(words)
        return type(self)(as_before, scale, zero, self.group, self.zeros)

    def grid(self, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale and zero of each group that reach from its lowest to its highest sum.

        A new scale is rounded up to its dtype. A group with a sum that is no number, or too large
        for the dtype, gets a scale that is none either.

        Args:
            low: (out, groups) float32, at most 0.
            high: likewise, at least 0.
        """
        ends = torch.stack([low, high]) * inverse(self.scale) + self.zero
        reach = ((ends >= -0.5) & (ends <= _LARGEST + 0.5)).all(0)
        keeps = reach & ((self.scale != 0) | (low == high))
        first, last = self.zeros
        spans = [(high - low) / _LARGEST, high / max(_LARGEST - first, 1), -low / max(last, 1)]
        scale = _rounded_up(torch.stack(spans).amax(0), self.scale.dtype)
        zero = (-low * inverse(scale)).round().nan_to_num().clamp(first, last).to(torch.uint8)
        return torch.where(keeps, self.scale, scale), torch.where(keeps, self.zero, zero)

    def _elements(self) -> torch.Tensor:
        out, width = self.shape
        if self.is_by_column:
            return unpack(self.codes.T, INTERLEAVED, out).T.float()
        return unpack(self.codes, IN_ORDER, width).float()

    def _spread(self, groups: torch.Tensor) -> torch.Tensor:
        return groups[:, self.group.long()]


_FLOATS = {torch.float16, torch.bfloat16, torch.float32}
_BITS = {2: torch.int16, 4: torch.int32}


def pack(codes: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """Return (rows, n) numbers from 0 to 15 as (rows, ⌈n / 8⌉) int32 words; the rest is 0."""
    rows, number = codes.shape
    padded = codes.new_zeros((rows, -(-number // PER_WORD) * PER_WORD), dtype=torch.int32)
    padded[:, :number] = codes
    parts = padded.view(rows, -1, PER_WORD) << _shifts(order, codes.device)
    return parts.sum(2).to(torch.int32)  # a sum of int32 is int64: its lower half are the bits


def unpack(words: torch.Tensor, order: tuple[int, ...], number: int) -> torch.Tensor:
    """Return the (rows, number) int32 codes of (rows, ⌈number / 8⌉) words."""
    parts = (words[:, :, None] >> _shifts(order, words.device)) & _LARGEST
    return parts.reshape(words.shape[0], words.shape[1] * len(order))[:, :number]


def inverse(scale: torch.Tensor) -> torch.Tensor:
    """Return what values are multiplied with, float32: 0 where the scale is 0, never infinite."""
    wide = scale.float()
    largest = torch.finfo(torch.float32).max  # of the smallest scales; 0 times it is 0 still
    return torch.where(wide == 0, 0.0, (1 / wide).clamp(max=largest))


def _shifts(order: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(order, dtype=torch.int32, device=device) * 4


def _rounded_up(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return numbers of at least 0 in a dtype, none smaller than it was."""
    near = values.to(dtype)
    above = (near.view(_BITS[dtype.itemsize]) + 1).view(dtype)
    return torch.where(near.float() < values, above, near)
