"""After a checkpoint was written: tiles of it are computed again from the adapters."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

from rankloom.adapter.change import Computed, ExpertLowRank, LowRank
from rankloom.apply.dense import Slabs
from rankloom.change.dtypes import FLOATS
from rankloom.change.formula import ByRows, Product
from rankloom.change.replay import check_tile, draw, half_unit, sample
from rankloom.change.threads import one_thread
from rankloom.errors import AdapterError, BaseError
from rankloom.tensorfile.header import LENGTH_BYTES, header_length, parse_header
from rankloom.tensorfile.index import spans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.apply.placed import Placed
    from rankloom.apply.steps import ShardPlan
    from rankloom.apply.stores import Sources
    from rankloom.tensorfile.header import Header, TensorEntry

SHARE = 20
"""Of changes that cannot be computed in part, one in so many is computed again."""


AT_ONCE = 16
"""Reads that wait for each other's answers, where a base or an output is far away."""


def replay(
    placed: Sequence[Placed],
    plans: Sequence[ShardPlan],
    base: Sources,
    output: Sources,
    seed: str,
    *,
    remote: bool = False,
) -> int:
    """Compare one tile of each changed tensor with what its adapters give in float64.

    The written files and the base are read again, and the sum goes another way than it did: not
    through folded factors. Changes that are computed for a whole parameter at once, or from
    thresholds over all of it, are replayed for one tensor in :data:`SHARE`, at least one.

    Args:
        placed: what was changed.
        plans: of all files.
        base: the base's files.
        output: the written ones.
        seed: what decides which tiles.
        remote: one of the two is far away.

    Returns:
        The number of tensors that were looked into.

    Raises:
        IntegrityError: a value is another than it may be.
    """
    headers = [_header(plan, output) for plan in plans]
    written = {name: entry for header in headers for name, entry in header.tensors.items()}

    def check(item: Placed) -> None:
        _check(item, written[item.name], base, output, seed)

    chosen = _chosen(placed, seed)
    # Torch counts its threads for each thread that calls it.
    pool = ThreadPoolExecutor(
        AT_ONCE if remote else 1, initializer=torch.set_num_threads, initargs=(1,)
    )
    with one_thread(), pool:
        return sum(1 for _ in pool.map(check, chosen))


def _header(plan: ShardPlan, output: Sources) -> Header:
    """Return the header that was written."""
    path, count = plan.new.path, LENGTH_BYTES
    for _ in range(2):  # its length, then all of it
        prefix = bytearray(count)
        output.open(path).read_into(memoryview(prefix), 0)
        count = LENGTH_BYTES + header_length(bytes(prefix), plan.nbytes, path, error=BaseError)
    return parse_header(bytes(prefix), plan.nbytes, path, error=BaseError)


def check_effect(placed: Sequence[Placed], unchanged: Sequence[str]) -> None:
    """Refuse a result in which nothing of what factors add to a tensor is left.

    Values that are put in the place of equal ones, and products with a base that is zero, are
    often meant.

    Args:
        placed: what was changed.
        unchanged: names of those that kept every bit.

    Raises:
        AdapterError: naming the first such tensor.
    """
    lost = [item.name for item in placed if item.name in unchanged and _adds(item)]
    if not lost:
        return
    more = f" and {len(lost) - 1} more" if lost[1:] else ""
    message = f"NUM005 {lost[0]}{more} would keep every bit: what is added is zero, or less than"
    message += " half a unit of its dtype everywhere"
    hint = "give larger weights or a wider dtype, or allow it: --allow-no-effect"
    raise AdapterError(message, hint=hint)


def _adds(item: Placed) -> bool:
    terms = [term for one in item.contributions for term in one.formula.terms]
    sums = (LowRank, ExpertLowRank, Product, ByRows)
    weighed = any(term.weight != 0 for term in terms)
    return weighed and all(isinstance(term.change, sums) for term in terms)


def _chosen(placed: Sequence[Placed], seed: str) -> list[Placed]:
    cheap = [item for item in placed if _is_cheap(item)]
    others = [item for item in placed if not _is_cheap(item)]
    others.sort(key=lambda item: draw(f"{seed}/{item.name}"))
    return cheap + others[: math.ceil(len(others) / SHARE)]


def _is_cheap(item: Placed) -> bool:
    terms = [term for one in item.contributions for term in one.formula.terms]
    return not any(isinstance(term.change, Computed | ByRows) for term in terms)


def _check(item: Placed, written: TensorEntry, base: Sources, output: Sources, seed: str) -> None:
    # What only became a tensor of its own has no contribution.
    region = item.contributions[0].piece.region if item.contributions else ()
    tile = sample(seed, item.name, spans(region, item.shape))
    box = [
        range(span, span + 1) if isinstance(span, int) else range(span[0], span[-1] + 1)
        for span in tile
    ]
    found = output.read_box(written, box)
    if not found.is_floating_point():
        return  # integers are copied
    before = torch.zeros(found.shape).double()
    if item.source is not None:
        before = base.read_box(item.source, box).double()
    expected, magnitude = before.clone(), before.abs()
    Slabs(item.contributions, base.read, once=True).add_(expected, before, box, magnitude)
    allowed = half_unit(expected, found.dtype) + _unit(item, found.dtype) * magnitude
    check_tile(found, expected, allowed, item.name, tuple(box))


def _unit(item: Placed, dtype: torch.dtype) -> float:
    """Return the error of a sum of products as a share of its magnitude.

    Each product is rounded as often as its factors are folded, and each of the K sums once: to
    first order (K + 4)·u, u being half an ε of the dtype in which they are added up (Higham,
    Accuracy and Stability of Numerical Algorithms, section 3.1).
    """
    source = FLOATS[item.source.dtype] if item.source is not None else dtype
    wide = torch.float64 in {source, dtype}
    terms = sum(sum(one.formula.ranks) for one in item.contributions) + 4
    return terms * torch.finfo(torch.float64 if wide else torch.float32).eps / 2
