"""Random masks that depend on where an element is, not on when it is asked for.

A generator with a state gives other numbers as soon as tensors are visited in another order, cut
into other tiles or shared among threads. Here the number of an element is a function of a key and
of the element's index in the whole tensor alone: SplitMix64 (Steele, Lea and Flood, *Fast
Splittable Pseudorandom Number Generators*, OOPSLA 2014), whose n-th output is a hash of
``key + n · γ``. Each 64-bit output serves two elements. It is integer arithmetic, so every device
gives the same bits.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from typing import Final

SCHEME: Final = "splitmix64-halves"
"""Name of the way from (seed, adapter, target, index) to a random number, for locks."""

VERSION: Final = 1
"""Changes with any change of a bit that the scheme gives."""


def _signed(word: int) -> int:
    """Return the int64 with the bits of an unsigned 64-bit number."""
    return (word + (1 << 63)) % (1 << 64) - (1 << 63)


GAMMA = _signed(0x9E3779B97F4A7C15)
MIX = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))

_LARGEST = (1 << 31) - 1


def stream_key(seed: int, adapter: str, target: str) -> int:
    """Return the key of one target's stream, an int64.

    Args:
        seed: the caller's.
        adapter: digest of the adapter, so that no two adapters drop the same elements.
        target: name of the parameter.
    """
    text = "\0".join((SCHEME, str(VERSION), str(seed), adapter, target))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def halves(
    key: int, start: int, count: int, device: torch.device | str | None = None
) -> torch.Tensor:
    """Return the random numbers of ``count`` elements from index ``start`` on.

    Semantics: element i has the low (i even) or the high half (i odd) of output ⌊i / 2⌋ of
    SplitMix64 seeded with ``key``, read as a signed number.

    Returns:
        (count,) int32, uniform over all 2³² values.
    """
    first = start // 2
    word = torch.arange(first + 1, (start + count + 1) // 2 + 1, device=device)
    word.mul_(GAMMA).add_(key)
    shifted = torch.empty_like(word)
    for shift, factor in MIX:
        word.bitwise_xor_(_shift_right(word, shift, shifted)).mul_(factor)
    word.bitwise_xor_(_shift_right(word, 31, shifted))
    return word.view(torch.int32)[start - 2 * first :][:count]


def _shift_right(word: torch.Tensor, places: int, out: torch.Tensor) -> torch.Tensor:
    """Shift zeros in from the left; torch's own shift of an int64 copies the sign."""
    torch.bitwise_right_shift(word, places, out=out)
    return out.bitwise_and_((1 << (64 - places)) - 1)


def cutoff(rate: float) -> int:
    """Return the number below which an element of :func:`halves` is kept.

    The share of the 2³² values below it is ``rate`` within 2⁻³³.

    Raises:
        ValueError: ``rate`` is not above 0 and at most 1.
    """
    if not 0 < rate <= 1:
        message = f"elements cannot be kept with probability {rate!r}"
        raise ValueError(message)
    return round(rate * (1 << 32)) - (1 << 31)


def cutoffs(rates: torch.Tensor) -> torch.Tensor:
    """Return :func:`cutoff` of many rates, float64 and checked by the caller, as int32.

    A rate within 2⁻³² of 1 becomes 1 - 2⁻³²: no int32 says more.
    """
    places = rates.mul(1 << 32).round_().sub_(1 << 31)
    return places.clamp_(max=_LARGEST).to(torch.int32)


def kept(
    key: int, start: int, count: int, rate: float, device: torch.device | str | None = None
) -> torch.Tensor:
    """Return which of ``count`` elements from index ``start`` on are kept, (count,) bool."""
    below = cutoff(rate)
    if below > _LARGEST:  # all of them, and no int32 says so
        return torch.ones(count, dtype=torch.bool, device=device)
    return halves(key, start, count, device) < below


def drop_(values: torch.Tensor, key: int, start: int, below: int | torch.Tensor) -> torch.Tensor:
    """Set to 0 the elements that are not kept, in place.

    Args:
        values: float32, contiguous; the first is element ``start`` of its tensor.
        key: the stream, from :func:`stream_key`.
        start: index of the first element in the whole tensor.
        below: :func:`cutoff` of the rate at which elements are kept, or one for each element as
            int32 of the shape of ``values``.

    Returns:
        ``values``.
    """
    if isinstance(below, int) and below > _LARGEST:
        return values
    keep = halves(key, start, values.numel(), values.device).view(values.shape)
    # 1 becomes a number of ones: a bitwise "and" costs a tenth of a selection by bool.
    values.view(torch.int32).bitwise_and_(keep.lt_(below).neg_())
    return values
