"""Compositions of what refs and folders name, and the search for their weights."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankloom import bases
from rankloom.client.versions import Versions
from rankloom.errors import RankloomWarning
from rankloom.recipe.lines import at_line

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from torch import nn

    from rankloom.compose.interference.report import InterferenceReport
    from rankloom.composition import Composition, Part
    from rankloom.fingerprint import Fingerprint
    from rankloom.recipe.demands import Demands
    from rankloom.recipe.document import Recipe
    from rankloom.registry.wire import Version
    from rankloom.tune.trial import Trial
    from rankloom.tune.tuned import Tuned

    PathLike = str | os.PathLike[str]


class Composing(Versions):
    """What a client makes of adapters."""

    def compose(
        self,
        refs: Sequence[PathLike],
        weights: Sequence[object] | None = None,
        *,
        method: str = "exact",
        rank: object = None,
        base: PathLike | None = None,
        engines: Sequence[str] = (),
        allow_no_effect: bool = False,
        **parameters: object,
    ) -> Composition:
        """Combine adapters: W + Σ wᵢ(Wᵢ′ − W), Wᵢ′ being what adapter i alone makes of W.

        Args:
            refs: refs or folders; folders need no registry.
            weights: one per adapter: a number, negative ones too; a list of numbers, which is a
                gradient over the layers; or filters, ``[{"filter": "mlp", "value": 0.5},
                {"value": 1}]``. ``None`` means all 1.
            method: how deltas are combined; ``"exact"`` is the weighted sum, rank Σr. The others
                are in ``docs/composition.md``.
            rank: bring the result to this rank: a number, ``"energy=0.999"`` or ``"auto"``;
                ``composition.errors`` says what is lost. ``None``: nothing is lost.
            base: a base's folder or name that all adapters must fit; it also tells how many
                layers there are.
            engines: serving engines that must take the rank, as ``"vllm"`` or
                ``"vllm,max_lora_rank=64"``.
            allow_no_effect: let it pass where an adapter leaves a target as it is, with a warning.
            parameters: of the method; what recipes call ``lambda`` is ``lambda_`` here.

        Raises:
            RefError: the number of weights differs from the number of adapters, one is none, or
                the method does not take a parameter.
            IncompatibleError: the adapters were made for different bases, or not for ``base``, or
                an engine does not take the rank.
            UnsupportedAdapterError: the method does not work on how an adapter stores its change.
            ConflictError: a version was yanked.
        """
        from rankloom.recipe.demands import Demands

        demands = Demands.of(engines, allow_no_effect=allow_no_effect)
        parts = [self._part(item) for item in refs]
        known = None if base is None else self._base(base)
        return self._compose(
            parts,
            weights,
            known,
            method=method,
            rank=rank,
            parameters={name.removesuffix("_"): value for name, value in parameters.items()},
            demands=demands,
        )

    def interference(
        self,
        refs: Sequence[PathLike],
        weights: Sequence[object] | None = None,
        *,
        rows: int = 64,
        seed: int = 0,
    ) -> InterferenceReport:
        """Measure how much adapters disagree where they meet, before they are composed.

        Args:
            refs: refs or folders.
            weights: those that they shall be composed with; as of :meth:`compose`.
            rows: how many rows of each target are looked at for the conflict of signs, the only
                figure that is an estimate.
            seed: which rows.

        Raises:
            RefError: an adapter stands twice, or there is nothing to measure.
            IncompatibleError: the adapters were made for different bases.
        """
        from rankloom.compose.interference.of_plan import report_on
        from rankloom.recipe.plan import make_plan

        plan = make_plan([self._part(item) for item in refs], weights)
        return report_on(plan, rows=rows, seed=seed)

    def compose_recipe(
        self,
        path: PathLike,
        *,
        locked: PathLike | None = None,
        engines: Sequence[str] = (),
        allow_no_effect: bool = False,
    ) -> Composition:
        """Compose what a recipe file says; its format is in ``docs/composition.md``.

        Args:
            path: a YAML file in rankloom's format or mergekit's; folders in it are relative to it.
            locked: a composition's folder or ``rankloom.json``: take the versions that it pins,
                and :meth:`Composition.save` refuses to write any other bytes.
            engines: as of :meth:`compose`, besides those of the recipe.
            allow_no_effect: as of :meth:`compose`, even if the recipe does not.

        Raises:
            RefError: something in the recipe is not understood; the message names the line.
            IntegrityError: the recipe is not the one that was locked.
            IncompatibleError: as of :meth:`compose`.
            ConflictError: a version was yanked, and the composition is not locked.
        """
        from rankloom.recipe.demands import Demands
        from rankloom.recipe.document import read_recipe

        more = Demands.of(engines, allow_no_effect=allow_no_effect)
        recipe = read_recipe(Path(path))
        demands = recipe.demands.joined(more)
        return self._compose_recipe(recipe, None if locked is None else Path(locked), demands)

    def compose_locked(
        self,
        refs: Sequence[PathLike],
        locked: PathLike,
        *,
        engines: Sequence[str] = (),
        allow_no_effect: bool = False,
    ) -> Composition:
        """Compose refs with the versions, weights and method that a lock pins.

        :meth:`Composition.save` refuses to write any other bytes than those that were recorded.

        Args:
            refs: the adapters in the order of the lock; an alias may name another version by now.
            locked: a composition's folder or its ``rankloom.json``.
            engines: as of :meth:`compose`.
            allow_no_effect: as of :meth:`compose`.

        Raises:
            IntegrityError: an adapter is not the one that was locked.
            RefError: the lock is none, or of an algorithm that this version does not have.
        """
        from rankloom.recipe.demands import Demands
        from rankloom.recipe.locked import check_parts, pinned, read_locked
        from rankloom.recipe.locking import arguments

        demands = Demands.of(engines, allow_no_effect=allow_no_effect)
        record, lock = read_locked(Path(locked))
        parts = [self._part(item, is_locked=True) for item in pinned(refs, lock)]
        check_parts(parts, lock)
        options = {**arguments(lock), "demands": demands}
        return self._compose(parts, known=record.base, wanted=record, **options)

    def tune(
        self,
        refs: Sequence[PathLike],
        *,
        evaluate: Callable[[Any], object],
        base: PathLike | None = None,
        model: nn.Module | None = None,
        held_out: Callable[[Any], object] | None = None,
        method: str = "exact",
        rank: object = None,
        groups: Sequence[str] = (),
        bands: int = 1,
        grid: Sequence[float] = (),
        bounds: tuple[float, float] = (0.0, 1.5),
        trials: int | None = None,
        seed: int = 0,
        journal: PathLike | None = None,
        checkpoints: bool = False,
        progress: Callable[[Trial], None] | None = None,
        **parameters: object,
    ) -> Tuned:
        """Find the weights of a composition on a dev set; see ``docs/tune.md``.

        The base as it is and each adapter alone are scored first, for comparison. The model is
        never loaded again, and has its own bits again after each trial.

        Args:
            refs: refs or folders.
            evaluate: scores a model on the dev set: a number, or better one for each example, of
                which intervals can be told. Higher is better. It must give the same score for the
                same model.
            base: the base's folder. It is loaded by transformers as the class that its config
                names, unless there is a ``model``.
            model: the base as a live model.
            held_out: the same on examples that had no part in the search; it scores what was found
                and what that is compared with.
            method: how deltas are combined, as of :meth:`compose`.
            rank: what compositions are brought to.
            groups: texts in the names of targets, each of which gets a weight of its own, as do
                all other targets.
            bands: cut each group into as many bands of layers, each with a weight of its own.
            grid: try every combination of these weights; empty: search by CMA-ES.
            bounds: lowest and highest weight of the search.
            trials: how many compositions are scored at most; ``None``: 30, or all of a grid.
            seed: of the search.
            journal: a file that keeps every score; the same call with it goes on where it was,
                and another search over the same weights takes what is there.
            checkpoints: ``evaluate`` gets the folder of a merged checkpoint, not a model.
            progress: called after each trial.
            parameters: of the method.

        Returns:
            The best composition, all trials, and whether it beats the best without all adapters.

        Raises:
            EvaluationError: a score is NaN or none; the message names the trial.
            ConflictError: the journal is of something else, or of another evaluation.
            RefError: groups, bands, grid or bounds make no sense; or as of :meth:`compose`.
            IncompatibleError: the adapters do not fit each other, or the base.
        """
        from rankloom.tune.recipe import Combined, pinned
        from rankloom.tune.search import Settings
        from rankloom.tune.stage import make_stage
        from rankloom.tune.start import tune

        parts = [self._part(item) for item in refs]
        known = None if base is None else self._base(base)
        where = Path(base) if base is not None and bases.is_folder(base) else None
        named = {name.removesuffix("_"): value for name, value in parameters.items()}
        found = [pinned(item, part.digest) for item, part in zip(refs, parts, strict=True)]
        return tune(
            parts,
            Combined(tuple(found), where or (str(base) if base else None), method, named, rank),
            make_stage(where, model, checkpoints=checkpoints),
            Settings(tuple(groups), bands, tuple(grid), bounds, trials, seed),
            {"dev": evaluate, **({"held_out": held_out} if held_out else {})},
            base=known.fingerprint if known else None,
            base_names=tuple(known.model.tensors) if known else (),
            options={"publisher": self._publish, "cache": self.settings.cache_dir / bases.CACHE},
            journal=None if journal is None else Path(journal),
            progress=progress,
        )

    def _compose(
        self,
        parts: Sequence[Part],
        weights: Sequence[object] | None,
        known: bases.KnownBase | Fingerprint | None,
        **options: Any,  # noqa: ANN401 - those of compose
    ) -> Composition:
        from rankloom.composition import compose

        names: Iterable[str] = ()
        if isinstance(known, bases.KnownBase):
            names = known.model.tensors
            known = known.fingerprint
        return compose(
            parts,
            weights,
            base=known,
            base_names=names,
            publisher=self._publish,
            cache=self.settings.cache_dir / bases.CACHE,
            **options,
        )

    def _compose_recipe(self, recipe: Recipe, locked: Path | None, demands: Demands) -> Composition:
        from rankloom.recipe.locked import check_lock, check_parts, pinned, read_locked

        known = self._base_of(recipe)
        options = {
            "method": recipe.method,
            "parameters": recipe.parameters,
            "rank": recipe.rank,
            "dtype": recipe.dtype,
            "demands": demands,
        }
        if locked is None:
            named = zip(recipe.refs, recipe.lines, strict=True)
            parts = [self._part(item, line=line) for item, line in named]
            return self._compose(parts, recipe.weights, known, **options)
        record, lock = read_locked(locked)
        again = zip(pinned(recipe.refs, lock), recipe.lines, strict=True)
        parts = [self._part(item, line=line, is_locked=True) for item, line in again]
        check_parts(parts, lock)
        composition = self._compose(parts, recipe.weights, known, wanted=record, **options)
        check_lock(composition.lock, lock)
        return composition

    def _base_of(self, recipe: Recipe) -> bases.KnownBase | None:
        """Return the base of a recipe; one that only another tool knows is passed over."""
        if recipe.base is None:
            return None
        if recipe.is_foreign and not Path(recipe.base).is_dir():
            message = f"BASE001 {recipe.base} is no folder here: the adapters are not compared with"
            message += " it, and they tell how many layers there are"
            warnings.warn(RankloomWarning(message), stacklevel=3)
            return None
        with at_line(recipe.base_line):
            return self._base(recipe.base)

    def _publish(self, composition: Composition, name: str, alias: str | None) -> Version:
        with tempfile.TemporaryDirectory(prefix="rankloom-") as folder:
            saved = composition.save(Path(folder) / "composition")
            return self.push(saved, name, alias=alias)
