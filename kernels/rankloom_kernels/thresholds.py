"""From which magnitude on elements of a delta are its largest, without holding the delta.

The k-th largest of many numbers is found by counting. Bits of float32 numbers that are not negative
are ordered as the numbers are, so a range of bits is cut into bins, the bin that holds the k-th is
cut again, and after two or three passes a bin is one number. A sample tells where to begin; it
decides how many passes there are and not what comes out.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from rankloom_kernels.backends import accepts, choose
from rankloom_kernels.separate import delta_rows, refuses_separate
from rankloom_kernels.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from rankloom_kernels.backends import Backend
    from rankloom_kernels.terms import Term

    Count: TypeAlias = Callable[[int, int], "Counts"]

BINS: Final = 1024
_SAMPLE = 1 << 16
_ALL = (0, 1 << 31)


class Counts(NamedTuple):
    """How the magnitudes of a delta lie to a range of bits.

    Attributes:
        above: number of those above the range.
        bins: (BINS,) int64, number of those in each equal part of it, from the lowest.
    """

    above: int
    bins: torch.Tensor


def thresholds(
    terms: Sequence[Term], densities: Sequence[float], *, backend: Backend | None = None
) -> tuple[float, ...]:
    """Return for each delta the magnitude from which elements belong to its largest ones.

    At least the share ``densityₙ`` of the elements of ``cₙ · bₙ @ aₙ`` is of that magnitude or
    more, and less than that of more: equal elements stay together. The deltas are those that
    :func:`rankloom_kernels.elect_merge_` computes on the same backend.

    Args:
        terms: deltas of one shape on one device.
        densities: share of elements to keep, for each delta, above 0 and at most 1; rounded down
            to a number of elements, which is at least one.
        backend: default: Triton on an NVIDIA GPU where it can, else torch.

    Returns:
        One magnitude for each delta; 0 for a density of 1.

    Raises:
        ValueError: numbers or shapes differ, or a density is not a share.
        BackendError: the backend that was asked for cannot do it; says why.
    """
    elements = [term.shape[0] * term.shape[1] for term in terms]
    for density in densities:
        if not 0 < density <= 1:
            message = f"a density of {density!r} is no share of the elements"
            raise ValueError(message)
    ranks = [max(1, int(density * n)) for density, n in zip(densities, elements, strict=True)]
    if not terms:
        return ()
    device = terms[0].b.device
    refuses = partial(refuses_separate, terms, device, asked=backend is not None)
    if choose(backend, {"triton": refuses, "torch": accepts}) == "triton":
        scans = _scans_on_triton(terms)
    else:
        scans = [partial(_count, term) for term in terms]
    return tuple(
        0.0 if rank >= n else kth_largest(scan, rank, _bracket(term, rank))
        for scan, rank, term, n in zip(scans, ranks, terms, elements, strict=True)
    )


def _scans_on_triton(terms: Sequence[Term]) -> list[Count]:
    from rankloom_kernels.gpu.count import count
    from rankloom_kernels.gpu.deltas import deltas

    held = deltas(terms)

    def scan(number: int, low: int, shift: int) -> Counts:
        found = count(held, number, BINS, low, shift)
        return Counts(int(found[-1]), found[:-1])

    return [partial(scan, number) for number in range(len(terms))]


def kth_largest(count: Count, rank: int, bits: tuple[int, int] = _ALL) -> float:
    """Return the ``rank``-th largest magnitude of what ``count`` counts.

    Args:
        count: takes the first bits of a range and the binary logarithm of the width of a bin.
        rank: at least 1 and at most the number of elements.
        bits: where it probably is.

    Raises:
        ValueError: there are not so many elements.
    """
    low, high = bits
    while True:
        shift = max(0, (-(-(high - low) // BINS) - 1).bit_length())
        counts = count(low, shift)
        at_least = counts.bins.flip(0).cumsum(0).flip(0) + counts.above
        if not counts.above < rank <= int(at_least[0]):
            if (low, high) == _ALL:
                message = f"{int(at_least[0])} magnitudes were counted, and there is no {rank}-th"
                raise ValueError(message)
            low, high = _ALL
            continue
        place = int((at_least >= rank).sum()) - 1
        low += place << shift
        high = low + (1 << shift)
        if shift == 0:
            return float(torch.tensor(low, dtype=torch.int32).view(torch.float32))


def _bracket(term: Term, kept: int) -> tuple[int, int]:
    """Return bits between which the threshold almost surely is, from a sample of elements."""
    rows, columns = term.shape
    size = min(_SAMPLE, rows * columns)
    generator = torch.Generator().manual_seed(0)
    i, j = (torch.randint(n, (size,), generator=generator) for n in (rows, columns))
    i, j = i.to(term.b.device), j.to(term.b.device)
    values = (term.b[i].float() * term.a[:, j].T.float()).sum(1).mul_(term.coefficient).abs_()
    bits = values.view(torch.int32).sort(descending=True).values
    share = kept / (rows * columns)
    # Six standard deviations of the number of sampled elements that are larger.
    spread = 6 * (size * share * (1 - share)) ** 0.5 + 8
    first, last = int(size * share - spread), int(size * share + spread)
    high = int(bits[first]) + 1 if first >= 0 else _ALL[1]
    low = int(bits[last]) if last < size else 0
    return low, high


def _count(term: Term, low: int, shift: int) -> Counts:
    above, bins = 0, torch.zeros(BINS, dtype=torch.int64, device=term.b.device)
    height = Workspace().rows(term.shape[1], torch.float32)
    for start in range(0, term.shape[0], height):
        bits = delta_rows(term, start, start + height).abs_().view(torch.int32)
        places = (bits - low).bitwise_right_shift_(shift)
        above += int((places >= BINS).sum())
        inside = places[(places >= 0) & (places < BINS)]
        bins += torch.bincount(inside, minlength=BINS)
    return Counts(above, bins)
