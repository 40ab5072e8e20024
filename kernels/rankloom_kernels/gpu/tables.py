"""Many matrices as one table of numbers, so that a single launch visits all of them.

A launch for each of the 224 matrices of an 8B model costs more than some of them take. Addresses,
sizes and strides are rows of an int64 table instead, and all arithmetic on them is 64 bits wide.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch

from rankloom_kernels.terms import Term

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MODULE_FIELDS = 9
"""weight, out, rows, columns, their strides, first term, past the last term, past the last tile."""

TERM_FIELDS = 3
"""b, a, rank."""

_FAR = 2.0**40
"""Coefficients whose ratio is beyond this are multiplied into float32 factors: the accumulator is
scaled by ratios, and theirs would cost it bits or overflow."""


class Job(NamedTuple):
    """One merge: ``out ← weight + Σ terms``; all three on one device."""

    weight: torch.Tensor
    out: torch.Tensor
    terms: tuple[Term, ...]


class Table(NamedTuple):
    """What one launch reads.

    Attributes:
        modules: (M, MODULE_FIELDS) int64.
        terms: (T, TERM_FIELDS) int64.
        scales: (T + M,) float32: before term t the accumulator of its module is multiplied by
            ``scales[t]``; at the end by ``scales[T + m]``.
        tiles: number of tiles of all modules.
    """

    modules: torch.Tensor
    terms: torch.Tensor
    scales: torch.Tensor
    tiles: int


def job(weight: torch.Tensor, out: torch.Tensor, terms: Sequence[Term]) -> Job:
    """Return the merge with rows along memory and without terms that add nothing.

    Raises:
        ValueError: shapes or devices differ, or neither rows nor columns of a tensor are
            contiguous.
    """
    shapes = {tuple(weight.shape), tuple(out.shape), *(term.shape for term in terms)}
    if len(shapes) != 1 or weight.dim() != 2:
        message = f"weight {tuple(weight.shape)}, out {tuple(out.shape)}, shapes {sorted(shapes)}"
        raise ValueError(message)
    devices = {weight.device, out.device, *(each.device for term in terms for each in term[:2])}
    if len(devices) != 1:
        message = f"tensors of one merge are on {sorted(map(str, devices))}"
        raise ValueError(message)
    return _by_rows(weight, out, terms)


def _by_rows(weight: torch.Tensor, out: torch.Tensor, terms: Sequence[Term]) -> Job:
    if _is_by_rows(weight) and _is_by_rows(out):
        return Job(weight, out, tuple(term for term in terms if _adds(term)))
    if _is_by_rows(weight.T) and _is_by_rows(out.T):
        return _by_rows(weight.T, out.T, [term.transposed() for term in terms])
    message = f"strides {weight.stride()} and {out.stride()}: neither rows nor columns are together"
    raise ValueError(message)


def _is_by_rows(matrix: torch.Tensor) -> bool:
    rows, columns = matrix.shape
    return columns <= 1 or (matrix.stride(1) == 1 and (rows <= 1 or matrix.stride(0) >= columns))


def _adds(term: Term) -> bool:
    return term.coefficient != 0 and term.b.shape[1] > 0


def factor_dtype(jobs: Sequence[Job]) -> torch.dtype:
    """Return what all factors can be read as.

    That is their own 16-bit dtype, or float32 if they have several, or if coefficients of one merge
    are too far apart to scale the accumulator by ratios.
    """
    if not _are_near(jobs):
        return torch.float32
    dtypes = {factor.dtype for item in jobs for term in item.terms for factor in term[:2]}
    return dtypes.pop() if len(dtypes) == 1 and dtypes <= _NARROW else torch.float32


class Dtypes(NamedTuple):
    """What weights, outputs and factors are read and written as."""

    weight: torch.dtype
    out: torch.dtype
    factors: torch.dtype


def dtypes_of(jobs: Sequence[Job]) -> Dtypes:
    """Return the dtypes of merges that have the same for weights and for outputs."""
    return Dtypes(jobs[0].weight.dtype, jobs[0].out.dtype, factor_dtype(jobs))


_NARROW = {torch.bfloat16, torch.float16}


def check_apart(matrices: Sequence[torch.Tensor]) -> None:
    """Refuse matrices that share memory: two programs would write to it in any order.

    Raises:
        ValueError: the memory of one reaches into another's.
    """
    spans = sorted(_span(matrix) for matrix in matrices if matrix.numel())
    for (_, end, one), (start, _, other) in pairwise(spans):
        if start < end:
            message = f"matrices {one} and {other} share memory: merge them one after the other"
            raise ValueError(message)


def _span(matrix: torch.Tensor) -> tuple[int, int, tuple[int, ...]]:
    pairs = zip(matrix.shape, matrix.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in pairs)
    start = matrix.data_ptr()
    return start, start + (last + 1) * matrix.itemsize, tuple(matrix.shape)


def ready(item: Job, factors: torch.dtype) -> Job:
    """Return the merge with contiguous factors of one dtype."""
    return item._replace(terms=tuple(_ready(term, factors) for term in item.terms))


def _ready(term: Term, dtype: torch.dtype) -> Term:
    b, a, coefficient = term
    if dtype == torch.float32:
        b, coefficient = b.double() * coefficient, 1.0
    return Term(b.to(dtype).contiguous(), a.to(dtype).contiguous(), coefficient)


def are_aligned(jobs: Iterable[Job]) -> bool:
    """Return whether every row of every matrix and factor starts at a multiple of 16 bytes."""
    return all(
        matrix.data_ptr() % 16 == 0 and matrix.stride(0) * matrix.itemsize % 16 == 0
        for item in jobs
        for matrix in (item.weight, item.out, *(each for term in item.terms for each in term[:2]))
    )


def table(jobs: Sequence[Job], tile: tuple[int, int]) -> Table:
    """Return the table of merges.

    Args:
        jobs: of :func:`ready`; they are to outlive the launch, since the table has addresses only.
        tile: rows and columns of a tile.
    """
    modules: list[list[int]] = []
    terms: list[list[int]] = []
    scales: list[float] = []
    lasts: list[float] = []
    tiles, device = 0, jobs[0].out.device
    for item in jobs:
        first = len(terms)
        terms += [[b.data_ptr(), a.data_ptr(), b.shape[1]] for b, a, _ in item.terms]
        coefficients = [term.coefficient for term in item.terms]
        scales += [before / after for before, after in pairwise([1.0, *coefficients])]
        lasts.append(coefficients[-1] if coefficients else 1.0)
        tiles += _tiles(item.out, tile)
        modules.append([*_fields(item), first, len(terms), tiles])
    return Table(
        torch.tensor(modules, dtype=torch.int64).to(device),
        torch.tensor(terms, dtype=torch.int64).reshape(-1, TERM_FIELDS).to(device),
        torch.tensor([*scales, *lasts], dtype=torch.float64).float().to(device),
        tiles,
    )


def _fields(item: Job) -> list[int]:
    weight, out = item.weight, item.out
    addresses = [weight.data_ptr(), out.data_ptr()]
    return [*addresses, *weight.shape, weight.stride(0), out.stride(0)]


def _tiles(matrix: torch.Tensor, tile: tuple[int, int]) -> int:
    high, wide = (-(-size // step) for size, step in zip(matrix.shape, tile, strict=True))
    return high * wide


def _are_near(jobs: Iterable[Job]) -> bool:
    """Return whether coefficients of each merge are near enough to be ratios of float32."""
    for item in jobs:
        sizes = [abs(term.coefficient) for term in item.terms]
        if sizes and not (max(sizes) <= min(sizes) * _FAR and 1 / _FAR < max(sizes) < _FAR):
            return False
    return True
