"""Checkpoint → checkpoint: every shard once, in memory that does not grow with the model."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from rankloom.apply.executors.threads import Threads
from rankloom.apply.folder import (
    check_space,
    companions,
    copy_companions,
    rewrite_config,
    rewrite_dtype,
    rewrite_index,
)
from rankloom.apply.identity import check_identity
from rankloom.apply.partial import partial_output
from rankloom.apply.place import place
from rankloom.apply.places import Origin
from rankloom.apply.replay import check_effect, replay
from rankloom.apply.report import ApplyReport
from rankloom.apply.resharding import plan_resharded
from rankloom.apply.s3 import is_s3
from rankloom.apply.s3_output import s3_output
from rankloom.apply.steps import plan_shard
from rankloom.apply.tasks import ShardTask, versions
from rankloom.apply.workers import processor
from rankloom.base.quantised import check_conversion
from rankloom.change.dtypes import CODES, FLOATS
from rankloom.digest import of_bytes, of_json
from rankloom.errors import BaseError, RankloomWarning, RefError
from rankloom.files import check_output
from rankloom.tensorfile.header import Header, read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import torch

    from rankloom.apply.partial import Partial
    from rankloom.apply.placed import Placed
    from rankloom.apply.s3_output import S3Output
    from rankloom.apply.staged import Finished
    from rankloom.apply.steps import ShardPlan
    from rankloom.apply.tasks import Executor
    from rankloom.base.model import Base
    from rankloom.change.formula import TargetChange
    from rankloom.fingerprint import Fingerprint


def apply_to_checkpoint(
    base: Base,
    changes: Sequence[TargetChange],
    out: Path | str,
    *,
    origin: Origin | None = None,
    expected: Fingerprint | None = None,
    found: Fingerprint | None = None,
    dtype: str | None = None,
    shard_bytes: int | None = None,
    executor: Executor | None = None,
    hashes: bool = False,
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
        out: the folder to make, or ``s3://bucket/prefix``.
        origin: where the base's tensors are, if not in its folder.
        expected: identity of the base that the changes were made for.
        found: identity of ``base``.
        dtype: ``"float32"``, ``"bfloat16"``, …: convert all floating tensors; default: keep.
        shard_bytes: largest size of a file's tensors; default: the same files as the base.
        executor: what carries it out; default: threads of this process. The bytes are the same.
        hashes: report the digest of what was written.
        seed: identity of the changes, and what decides which tiles are compared. What a killed run
            with the same one has finished is not done again.
        allow_no_effect: let tensors pass that keep every bit though something is added to them.
        progress: called with (bytes written, bytes to write).

    Raises:
        AdapterError: what is added to a tensor vanishes when it is rounded to its dtype.
        IntegrityError: a compared value is another than was written; nothing was kept.
        ConflictError: ``out`` exists and is not an empty folder, or another process writes it.
        IncompatibleError: another base; a parameter that it does not have, or in another shape,
            or quantised; a dtype for a base that is quantised; or values overflow the new dtype.
        BackendUnavailableError: not enough free space.
        WorkerLostError: a process or a machine that worked on it was lost, again and again.
        RefError: unknown dtype.
    """
    began = time.perf_counter()
    chosen = parse_dtype(dtype)
    if dtype is not None:
        check_conversion(base, dtype)
    if not is_s3(out):
        check_output(Path(out))
    check_identity(expected, found, str(base.path))
    origin = origin or Origin.of(base)
    placement = place(base, changes)
    placed = placement.tensors
    plans = _plan(base, placed, chosen, shard_bytes)
    identity = _identity(origin, plans, seed, hashes)
    with _output(out, identity, [plan.name for plan in plans], hashes=hashes) as output:
        kept = output.finished()
        tasks = [ShardTask(plan, origin, output.stage) for plan in plans if plan.name not in kept]
        beside = sum(path.stat().st_size for path in companions(base))
        counter = _Counter(sum(plan.nbytes for plan in plans) + beside, progress)
        if not is_s3(out):
            check_space(Path(out), sum(task.plan.nbytes for task in tasks) + beside)
        copy_companions(base, output.content)
        counter.add(beside + sum(one.nbytes for one in kept.values()))
        (executor or Threads(None)).run(tasks, output.add, counter.add)
        rewrite_config(output.content, placement.config)
        if chosen is not None:
            rewrite_dtype(output.content, CODES[chosen])
        if any(plan.prefix for plan in plans):
            rewrite_index(output.content, plans)
        written = output.finished().values()
        _tell_processors(written)
        unchanged = tuple(sorted([name for one in written for name in one.unchanged]))
        if not allow_no_effect:
            check_effect(placed, unchanged)
        remote = origin.is_remote or is_s3(out)
        with origin.open() as before, output.open() as after:
            replayed = replay(placed, plans, before, after, seed, remote=remote)
        nbytes = sum(path.stat().st_size for path in output.content.iterdir())
        if is_s3(out):
            nbytes += sum(plan.nbytes for plan in plans)
    seconds = time.perf_counter() - began
    digest = digest_of({one.name: one.digest for one in written if one.digest}) if hashes else None
    return ApplyReport(len(placed), unchanged, replayed, nbytes, seconds, digest)


def digest_of(files: Mapping[str, str]) -> str:
    """Return one digest of several files.

    It is that of what ``sha256sum *.safetensors`` prints of them, sorted by name.

    Args:
        files: digest by name.
    """
    lines = [f"{one.removeprefix('sha256:')}  {name}\n" for name, one in sorted(files.items())]
    return of_bytes("".join(lines).encode())


def _tell_processors(written: Iterable[Finished]) -> None:
    kinds = sorted({one.processor for one in written})
    if len(kinds) > 1:
        message = f"files were computed on processors of several kinds ({'; '.join(kinds)}), which"
        message += " may round sums to different neighbours: another run may give another digest"
        warnings.warn(RankloomWarning(message), stacklevel=4)


def _output(
    out: Path | str, identity: str, names: Collection[str], *, hashes: bool
) -> AbstractContextManager[Partial] | AbstractContextManager[S3Output]:
    if is_s3(out):
        return s3_output(str(out), identity, names, hashes=hashes)
    return partial_output(Path(out), identity, hashes=hashes)


def _plan(
    base: Base, placed: Sequence[Placed], dtype: torch.dtype | None, shard_bytes: int | None
) -> Sequence[ShardPlan]:
    headers = [read_header(path, error=BaseError) for path in base.files]
    if shard_bytes is None:
        return [plan_shard(header, _of_file(header, placed), dtype) for header in headers]
    return plan_resharded(headers, {item.name: item for item in placed}, dtype, shard_bytes)


def _identity(origin: Origin, plans: Sequence[ShardPlan], seed: str, hashes: bool) -> str:
    """Return a digest of all that decides the bytes of the output, as far as it is known here."""
    written = [(plan.name, plan.nbytes, of_bytes(plan.prefix)) for plan in plans]
    source = origin.place, dict(origin.states)
    made_with = *versions(), processor()
    return of_json([seed or uuid4().hex, source, written, made_with, hashes])


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
