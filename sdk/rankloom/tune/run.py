"""Scores the base, each adapter alone, and one composition after another."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from rankloom.composition import compose
from rankloom.errors import ConflictError, EvaluationError
from rankloom.tune.stage import quiet
from rankloom.tune.trial import Trial, read_score

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rankloom.composition import Composition, Part
    from rankloom.tune.journal import Journal, Key, Split
    from rankloom.tune.search import Search
    from rankloom.tune.space import Space, Vector
    from rankloom.tune.stage import Stage
    from rankloom.tune.trial import Kind, Score

    Evaluate = Callable[[Any], object]

PATIENCE = 20
"""Proposals for each trial: a search that only repeats itself has found what it can."""


class Run:
    """One search for weights.

    Args:
        parts: the adapters.
        space: what is sought.
        stage: where compositions are scored.
        evaluations: the callback that scores on the dev set and, perhaps, on held-out examples.
        journal: what was scored before.
        shared: arguments of every composition: of what base, say.
        combined: arguments of those of all adapters: the method, its parameters, the rank.
        progress: called after each trial.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        space: Space,
        stage: Stage,
        evaluations: Mapping[Split, Evaluate],
        journal: Journal,
        *,
        shared: Mapping[str, Any],
        combined: Mapping[str, Any],
        progress: Callable[[Trial], None] | None = None,
    ) -> None:
        self._parts, self._space, self._stage = tuple(parts), space, stage
        self._evaluations, self._journal = evaluations, journal
        self._shared, self._combined, self._progress = shared, combined, progress
        self._is_checked = not journal.resumed
        self._examples: dict[Split, int] = {}
        self.trials: list[Trial] = []

    def references(self) -> None:
        """Score the base as it is and each adapter alone, which every search is compared with."""
        vectors = [self._space.alone(number) for number in range(len(self._parts))]
        self._try("base", tuple(0.0 for _ in vectors[0]))
        for vector in vectors:
            self._try("alone", vector)

    def search(self, search: Search, limit: int) -> None:
        """Score what a search proposes, until it ends or ``limit`` compositions were scored."""
        # With an exact sum an adapter at weight 1 is what it is alone; the base is always itself.
        exact = self._combined["method"] == "exact" and self._combined["rank"] is None
        known = {
            trial.weights: trial.score.value
            for trial in self.trials
            if exact or trial.kind == "base"
        }
        tried = 0
        for _ in range(PATIENCE * limit):
            vector = search.ask() if tried < limit else None
            if vector is None:
                break
            if vector not in known:
                known[vector] = self._try("composition", vector).score.value
                tried += 1
            search.tell(known[vector])

    def held_out(self, trial: Trial) -> Score:
        """Score something that was tried on the held-out examples."""
        return self._score("held_out", trial.kind, trial.weights)[0]

    def composition(self, kind: Kind, vector: Vector) -> Composition | None:
        """Return what a trial applies; ``None``: nothing."""
        if kind == "base":
            return None
        if kind == "alone":
            place = next(n for n in range(len(self._parts)) if self._space.alone(n) == vector)
            return compose([self._parts[place]], **self._shared)
        weights = self._space.weights(vector)
        return compose(self._parts, weights, **self._shared, **self._combined)

    def _try(self, kind: Kind, vector: Vector) -> Trial:
        score, seconds = self._score("dev", kind, vector)
        trial = Trial(len(self.trials), kind, vector, score, seconds)
        self.trials.append(trial)
        if self._progress:
            self._progress(trial)
        return trial

    def _score(self, split: Split, kind: Kind, vector: Vector) -> tuple[Score, float]:
        key = split, kind, vector
        found = self._journal.find(key)
        if found is None:
            self._check_evaluation()
            found = self._measure(key)
        self._check_examples(key, found[0])
        self._journal.add(key, *found)
        return found

    def _check_examples(self, key: Key, score: Score) -> None:
        count, before = len(score.examples), self._examples.get(key[0])
        if before not in {None, count}:
            message = f"{self._name(key)} was scored on {count} examples, others on {before}"
            raise EvaluationError(message, hint="score the same examples in every trial")
        self._examples[key[0]] = count

    def _measure(self, key: Key) -> tuple[Score, float]:
        split, kind, vector = key
        with quiet():
            composition = self.composition(kind, vector)
        started = time.monotonic()
        value = self._stage.run(self._evaluations[split], composition)
        return read_score(value, self._name(key)), time.monotonic() - started

    def _check_evaluation(self) -> None:
        """Demand that the base scores what it scored when the journal was begun.

        Raises:
            ConflictError: it does not, so old and new scores cannot be compared.
        """
        if self._is_checked:
            return
        self._is_checked = True
        key: Key = "dev", "base", tuple(0.0 for _ in self._space.names)
        found = self._journal.find(key)
        if found is None:
            return
        before, now = found[0].value, self._measure(key)[0].value
        # Another processor may sum otherwise; another dev set is further off than that.
        if not math.isclose(before, now, rel_tol=1e-6, abs_tol=1e-9):
            message = f"the base alone scores {now:.6g} now, and {before:.6g} in the journal"
            hint = "the evaluation is another, or is random: name another journal"
            raise ConflictError(message, hint=hint)

    def _name(self, key: Key) -> str:
        split, kind, vector = key
        what = {"base": "the base alone", "alone": f"{self._space.describe(vector)} alone"}
        where = "" if split == "dev" else " on held-out examples"
        numbered = f"trial {len(self.trials)}, {self._space.describe(vector)}"
        return what.get(kind, numbered) + where
