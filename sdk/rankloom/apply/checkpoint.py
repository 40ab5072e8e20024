"""Checkpoint → checkpoint: every shard once, in memory that does not grow with the model."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from rankloom.apply.folder import (
    check_space,
    companions,
    copy_companions,
    rewrite_config,
    rewrite_dtype,
    rewrite_index,
)
from rankloom.apply.identity import check_identity
from rankloom.apply.place import place
from rankloom.apply.replay import check_effect, replay
from rankloom.apply.report import ApplyReport
from rankloom.apply.steps import plan_shard
from rankloom.apply.stores import Sources
from rankloom.apply.transfer import LocalSink
from rankloom.apply.workers import Job, Written, usual_workers
from rankloom.change.dtypes import CODES, FLOATS
from rankloom.errors import BaseError, RefError
from rankloom.files import check_output, output_folder
from rankloom.tensorfile.header import Header, read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from rankloom.apply.placed import Placed
    from rankloom.apply.steps import ShardPlan
    from rankloom.base.model import Base
    from rankloom.change.formula import TargetChange
    from rankloom.fingerprint import Fingerprint


def apply_to_checkpoint(
    base: Base,
    changes: Sequence[TargetChange],
    out: Path,
    *,
    expected: Fingerprint | None = None,
    found: Fingerprint | None = None,
    dtype: str | None = None,
    seed: str = "",
    allow_no_effect: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ApplyReport:
    """Write ``W ← round(W + ΔW)`` for every changed tensor, and everything else as it is.

    Each sum is accumulated in float32 (float64 where a float64 tensor takes part) and rounded
    once. Tensors that nothing is added to are copied byte for byte. What was written is read again
    and compared, tile by tile, with what the changes give in float64. The output folder appears
    complete, or not at all.

    Args:
        base: the checkpoint to read.
        changes: what is added to which parameter.
        out: the folder to make.
        expected: identity of the base that the changes were made for.
        found: identity of ``base``.
        dtype: ``"float32"``, ``"bfloat16"``, …: convert all floating tensors; default: keep.
        seed: what decides which tiles are compared.
        allow_no_effect: let tensors pass that keep every bit though something is added to them.
        progress: called with (bytes written, bytes to write).

    Raises:
        AdapterError: what is added to a tensor vanishes when it is rounded to its dtype.
        IntegrityError: a compared value is another than was written; nothing was kept.
        ConflictError: ``out`` exists and is not an empty folder.
        IncompatibleError: another base; a parameter that it does not have, or in another shape,
            or quantised; or values overflow the new dtype.
        BackendUnavailableError: not enough free space.
        RefError: unknown dtype.
    """
    began = time.perf_counter()
    chosen = parse_dtype(dtype)
    check_output(out)
    check_identity(expected, found, str(base.path))
    placement = place(base, changes)
    placed = placement.tensors
    headers = [read_header(path, error=BaseError) for path in base.files]
    plans = [plan_shard(header, _of_file(header, placed), chosen) for header in headers]
    beside = sum(path.stat().st_size for path in companions(base))
    counter = _Counter(sum(plan.nbytes for plan in plans) + beside, progress)
    check_space(out, counter.total)
    written: list[Written] = []
    with output_folder(out) as folder:
        copy_companions(base, folder)
        counter.add(beside)
        with Sources() as sources:
            job = Job(plans, sources, partial(_create, folder), written.append)
            job.run(usual_workers(), counter.add)
        rewrite_config(folder, placement.config)
        if chosen is not None:
            rewrite_dtype(folder, CODES[chosen])
        if any(plan.prefix for plan in plans):
            rewrite_index(folder, {item.name: item.file.name for item in placed}, _nbytes(plans))
        unchanged = tuple(name for one in written for name in one.unchanged)
        if not allow_no_effect:
            check_effect(placed, unchanged)
        replayed = replay(placed, folder, seed)
        nbytes = sum(path.stat().st_size for path in folder.iterdir())
    seconds = time.perf_counter() - began
    return ApplyReport(len(placed), unchanged, replayed, nbytes, seconds)


def _create(folder: Path, plan: ShardPlan) -> LocalSink:
    return LocalSink(folder / plan.name, plan.nbytes)


def _of_file(header: Header, placed: Sequence[Placed]) -> dict[str, Placed]:
    return {item.name: item for item in placed if item.file == header.path}


def parse_dtype(name: str | None) -> torch.dtype | None:
    """Return the dtype of a name such as ``"bfloat16"`` (``None``: ``None``).

    Raises:
        RefError: it is none that a weight can be converted to.
    """
    known = {str(dtype).removeprefix("torch."): dtype for dtype in FLOATS.values()}
    if name is None:
        return None
    if name not in known:
        message = f"{name!r} is no dtype for weights"
        raise RefError(message, hint=f"one of {', '.join(known)}")
    return known[name]


class _Counter:
    """Adds up bytes for a progress callback."""

    def __init__(self, total: int, report: Callable[[int, int], None] | None) -> None:
        self.total, self._done, self._report = total, 0, report

    def add(self, nbytes: int) -> None:
        """Count bytes that were written."""
        self._done += nbytes
        if self._report:
            self._report(self._done, self.total)


def _nbytes(plans: Sequence[ShardPlan]) -> int:
    return sum(entry.nbytes for plan in plans for entry in plan.new.tensors.values())
