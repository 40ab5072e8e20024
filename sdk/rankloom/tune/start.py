"""The whole of a search for weights, from adapters to a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.composition import compose
from rankloom.tune.journal import open_journal
from rankloom.tune.run import Run
from rankloom.tune.space import make_space
from rankloom.tune.tuned import Tuned, best, rival

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rankloom.composition import Part
    from rankloom.fingerprint import Fingerprint
    from rankloom.tune.journal import Split
    from rankloom.tune.recipe import Combined
    from rankloom.tune.run import Evaluate
    from rankloom.tune.search import Settings
    from rankloom.tune.space import Space
    from rankloom.tune.stage import Stage
    from rankloom.tune.trial import Score, Trial


def tune(
    parts: Sequence[Part],
    combined: Combined,
    stage: Stage,
    settings: Settings,
    evaluations: Mapping[Split, Evaluate],
    *,
    base: Fingerprint | None,
    base_names: Sequence[str],
    options: Mapping[str, Any],
    journal: Path | None = None,
    progress: Callable[[Trial], None] | None = None,
) -> Tuned:
    """Search weights; errors are those of :meth:`rankloom.client.Client.tune`.

    Args:
        parts: the adapters.
        combined: how they are combined.
        stage: where compositions are scored.
        settings: how to search.
        evaluations: callbacks: ``dev``, and ``held_out`` if there is one.
        base: identity of the base, if it was taken.
        base_names: names of its tensors, if they are known.
        options: of every composition: its publisher and the cache of fingerprints.
        journal: file that keeps the scores.
        progress: called after each trial.
    """
    shared = {"base": base, "base_names": base_names, **options}
    space = make_space(
        parts,
        settings.groups,
        settings.bands,
        base_names=base_names,
        shared=combined.method != "exact",
    )
    search, limit = settings.search(space)
    # The first composition gives all warnings, and the lock of what will be scored.
    lock = compose(parts, **shared, **combined.arguments).lock
    what = {
        "lock": lock.to_json(),
        "base": base and base.model_dump(mode="json", exclude_none=True),
        "space": space.to_json(),
    }
    with open_journal(journal, what) as known:
        run = Run(
            parts,
            space,
            stage,
            evaluations,
            known,
            shared=shared,
            combined=combined.arguments,
            progress=progress,
        )
        run.references()
        run.search(search, limit)
        trials = tuple(run.trials)
        held_out = _held_out(run, space, trials) if "held_out" in evaluations else {}
    found = best(space, trials)
    composition = None if found is None else run.composition(found.kind, found.weights)
    return Tuned(space, trials, held_out, composition, combined)


def _held_out(run: Run, space: Space, trials: tuple[Trial, ...]) -> dict[int, Score]:
    """Score what is compared: the base, each adapter alone, the best and its rival."""
    picked = [trial for trial in trials if trial.kind != "composition"]
    picked += [one for one in (rival(space, trials), best(space, trials)) if one is not None]
    return {trial.number: run.held_out(trial) for trial in picked}
