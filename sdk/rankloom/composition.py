"""A composition: what several adapters are together, before and after it is put somewhere."""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom import digest
from rankloom.errors import BackendUnavailableError, RankloomWarning
from rankloom.recipe.checks import check_target_base, common_base
from rankloom.recipe.demands import Demands
from rankloom.recipe.locking import lock
from rankloom.recipe.part import Part
from rankloom.recipe.plan import make_plan

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import nn

    from rankloom.apply.live.handle import Handle
    from rankloom.apply.report import ApplyReport
    from rankloom.change.formula import TargetChange
    from rankloom.compose.losses import Losses
    from rankloom.fingerprint import Fingerprint
    from rankloom.manifest import Manifest
    from rankloom.recipe.plan import Plan
    from rankloom.recipe.recipe import Lock
    from rankloom.registry.wire import Version

    Publisher = Callable[["Composition", str, str | None], Version]

__all__ = ["Composition", "Part", "compose"]


def compose(
    parts: Sequence[Part],
    weights: Sequence[object] | None = None,
    *,
    method: str = "exact",
    parameters: Mapping[str, object] | None = None,
    rank: object = None,
    base: Fingerprint | None = None,
    base_names: Iterable[str] = (),
    publisher: Publisher | None = None,
    cache: Path | None = None,
    wanted: Manifest | None = None,
    dtype: str | None = None,
    demands: Demands | None = None,
) -> Composition:
    """Compose resolved adapters; only headers are read.

    Args:
        parts: the adapters, in the order that decides the order of factors in the result.
        weights: one for each: a finite number, negative ones too, a gradient over the layers or
            filters; ``None`` means all 1.
        method: how deltas are combined.
        parameters: of the method.
        rank: what the result is brought to; ``None``: the rank that the method gives.
        base: identity of a base that all of them must fit.
        base_names: names of its tensors, which say how many layers it has.
        publisher: what :meth:`Composition.push` calls.
        cache: folder in which fingerprints of bases are remembered.
        wanted: the record that it must have once it is saved.
        dtype: of a checkpoint that it is applied to, if nothing else is said there.
        demands: what it has to meet besides.

    Raises:
        RefError: unknown method, parameter or rank; the weights are not one for each part, or all
            0.
        IncompatibleError: the parts were made for different bases, or disagree on a shape, or an
            engine does not take the rank.
        UnsupportedAdapterError: the method does not work on how an adapter stores its change.
    """
    plan = make_plan(
        parts, weights, method=method, parameters=parameters, rank=rank, base_names=base_names
    )
    demands = demands or Demands()
    demands.check_plan(plan)
    if base is not None:
        check_target_base(parts, base)
    for finding in plan.findings:
        warnings.warn(RankloomWarning(str(finding)), stacklevel=2)
    known = common_base(parts) or base
    pinned = lock(parts, plan)
    return Composition(
        tuple(parts),
        plan,
        pinned,
        known,
        publisher=publisher,
        cache=cache,
        wanted=wanted,
        dtype=dtype,
        demands=demands,
    )


class Composition:
    """Several adapters as one, not yet anywhere; factors are read when they are needed.

    Attributes:
        parts: the adapters composed.
        plan: what will be added to which target; ``print(composition.plan)`` shows it.
        lock: digests, weights and algorithm: everything that decides the bytes of the result.
        base: identity of the base that the adapters were made for, if any of them records it.
        dtype: of a checkpoint that it is applied to, if the recipe says it.
        demands: what it has to meet besides.
    """

    def __init__(
        self,
        parts: tuple[Part, ...],
        plan: Plan,
        lock: Lock,
        base: Fingerprint | None,
        *,
        publisher: Publisher | None = None,
        cache: Path | None = None,
        wanted: Manifest | None = None,
        dtype: str | None = None,
        demands: Demands,
    ) -> None:
        self.parts, self.plan, self.lock, self.base = parts, plan, lock, base
        self._publisher, self._cache, self._wanted = publisher, cache, wanted
        self.dtype, self.demands = dtype, demands
        self._computed: tuple[tuple[TargetChange, ...], Losses] | None = None

    def __repr__(self) -> str:
        return f"<Composition {str(self.plan).partition(chr(10))[0]}>"

    @cached_property
    def digest(self) -> str:
        """Digest of the lock: of everything that decides the bytes of the result."""
        return digest.of_json(self.lock.to_json())

    @property
    def targets(self) -> tuple[str, ...]:
        """Full names of the parameters that it changes, sorted."""
        return tuple(target.name for target in self.plan.targets)

    @property
    def changes(self) -> tuple[TargetChange, ...]:
        """What it adds to each parameter, as values.

        Methods that look into the deltas, and ``rank``, read factors here, once.

        Raises:
            AdapterError: a factor cannot be read, or holds NaN or infinity; or an adapter has no
                effect on a target.
            IncompatibleError: the method is not defined for these deltas.
        """
        return self._compute()[0]

    @property
    def errors(self) -> Losses:
        """What each target lost by ``rank``, and all of them together; errors as of ``changes``."""
        return self._compute()[1]

    def _compute(self) -> tuple[tuple[TargetChange, ...], Losses]:
        from rankloom.compose.compute import compute
        from rankloom.recipe.effect import find_no_effect

        if self._computed is None:
            for finding in find_no_effect(self.plan, allow=self.demands.allow_no_effect):
                warnings.warn(RankloomWarning(str(finding)), stacklevel=3)
            self._computed = compute(self.plan, [part.digest for part in self.parts])
        return self._computed

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as a PEFT folder in which every scale is 1 and all ranks are one.

        So PEFT and every serving engine read the same change; the same inputs give the same bytes.

        ``rankloom.json`` beside the two files of PEFT holds base identity and lock.

        Returns:
            The folder.

        Raises:
            ConflictError: ``path`` exists and is not an empty folder; nothing was written.
            UnsupportedAdapterError: a change has no form there; applying works.
            IncompatibleError: an engine that was named does not take its rank.
            AdapterError: an adapter has no effect on a target.
            IntegrityError: it was composed by a lock and is not what that recorded; nothing was
                kept.
        """
        from rankloom.compose.arrange import arrange
        from rankloom.compose.peft_config import peft_config
        from rankloom.compose.save import save
        from rankloom.compose.widen import widen

        forms = widen(arrange(self.changes))
        config = peft_config(forms, [part.adapter.config.raw for part in self.parts])
        self.demands.check_rank(config["r"], "the result")
        save(self.changes, forms, config, self.lock, self.base, Path(path), wanted=self._wanted)
        return Path(path)

    def push(self, name: str, *, alias: str | None = None) -> Version:
        """Publish it as a version of ``name`` in the registry of the client that composed it.

        Raises:
            BackendUnavailableError: it was not composed by a client.
        """
        if self._publisher is None:
            message = "this composition was made without a registry"
            raise BackendUnavailableError(message, hint="save() it, then push the folder")
        return self._publisher(self, name, alias)

    def apply_to(
        self,
        base: str | os.PathLike[str],
        output: str | os.PathLike[str],
        *,
        dtype: str | None = None,
        shard_bytes: int | None = None,
        workers: int | None = None,
        on: str = "threads",
        digest: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> ApplyReport:
        """Add it to a checkpoint and write the result as a new one, in bounded memory.

        If the adapters record their base, the base's values are hashed first, and the result is
        remembered in the client's cache. If the process is killed, the next one with the same
        arguments goes on with the files that were finished.

        Args:
            base: the base's folder, or ``s3://bucket/prefix``; it is only read. In S3 its identity
                is checked by names and shapes, with a warning.
            output: the folder to make, or ``s3://bucket/prefix``.
            dtype: convert floating tensors to this (``"bfloat16"``, …); default: the recipe's,
                else each keeps its own.
            shard_bytes: largest size of a file's tensors; default: the same files as the base.
            workers: how many at once; default: threads as torch would use, up to four; a process
                for each core; all that the cluster has.
            on: what carries it out: ``"threads"`` of this process, ``"processes"``, ``"ray"`` or
                the address of a cluster, ``"ray://host:10001"``. The bytes are the same. With
                ``"cuda"`` or ``"cuda:1"`` threads let a GPU compute, which may round some sums
                that lie next to a tie the other way.
            digest: report the digest of what was written.
            progress: called with (bytes written, bytes to write).

        Raises:
            IncompatibleError: another base than the adapters', or one that they do not fit.
            ConflictError: ``output`` exists and is not an empty folder; nothing was written.
            AdapterError: an adapter, or what is added to a tensor, has no effect.
            IntegrityError: what was written is not what the adapters give; nothing was kept.
            WorkerLostError: a process or a machine that worked on it was lost, again and again.
        """
        from rankloom.apply.checkpoint import apply_to_checkpoint
        from rankloom.apply.executors import find_executor
        from rankloom.apply.places import open_base
        from rankloom.apply.s3 import is_s3
        from rankloom.base.fingerprint import fingerprint
        from rankloom.files import check_output

        out = str(output) if is_s3(output) else Path(output)
        if isinstance(out, Path):
            check_output(out)
        executor, found = find_executor(on, workers), None
        with open_base(base) as (model, origin):
            if self.base is not None:
                recorded = bool(self.base.exact or self.base.bf16) and not origin.is_remote
                found = fingerprint(model, values=recorded, cache=self._cache)
            return apply_to_checkpoint(
                model,
                self.changes,
                out,
                origin=origin,
                expected=self.base,
                found=found,
                dtype=dtype or self.dtype,
                shard_bytes=shard_bytes,
                executor=executor,
                hashes=digest,
                seed=self.digest,
                allow_no_effect=self.demands.allow_no_effect,
                progress=progress,
            )

    def apply(
        self,
        model: nn.Module,
        *,
        device_bytes: int | None = None,
        host_bytes: int | None = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        factor_bytes: int = 1 << 30,
    ) -> Handle:
        """Add it to a live model in place; ``with`` or ``restore()`` gives the exact bits back.

        The handle can ``swap()`` it for another one. The base's own values of changed parameters
        are kept meanwhile: as copies on the parameters' device, then in (pinned) main memory, and
        what exceeds both is mapped from the checkpoint.

        Args:
            model: the base: of transformers, diffusers or any other ``nn.Module``; its parameters
                may be sharded over processes (FSDP2, tensor parallel), each of which calls this.
            device_bytes: of copies beside the parameters; ``None``: no limit.
            host_bytes: of copies in main memory once that is full; ``None``: no limit.
            checkpoint: folder that the model was loaded from.
            factor_bytes: of factors that are kept for the next swap, the latest used first.

        Raises:
            IncompatibleError: the model has no such parameters, or is another base.
            ConflictError: another composition lies on the model already.
            BackendUnavailableError: copies exceed what was given, and there is no checkpoint.
        """
        from rankloom.apply.live.attach import apply_to_model
        from rankloom.apply.live.originals import Budget, Originals

        folder = None if checkpoint is None else Path(checkpoint)
        budget = Budget(device_bytes, host_bytes, folder, factor_bytes)
        return apply_to_model(model, self, originals=Originals(budget))
