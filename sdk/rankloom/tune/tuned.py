"""What a search for weights found, and whether that is worth anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankloom.tune.bootstrap import of_difference, of_score, shown

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from rankloom.composition import Composition
    from rankloom.tune.bootstrap import Interval
    from rankloom.tune.recipe import Combined
    from rankloom.tune.space import Space
    from rankloom.tune.trial import Score, Trial

COLUMNS = ("what", "dev", "held out", "held out, against the rival")
"""Heads of the columns of :meth:`Tuned.table`."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """The result of a search for weights.

    A composition counts as found only if every adapter takes part in it, with a weight other than
    0 somewhere, and it scores higher on the dev set than everything in which some adapter does
    not: the base, each adapter alone, and whatever else the search tried.

    Attributes:
        space: what the weights of a trial mean.
        trials: everything that was scored, in order: the base, each adapter alone, compositions.
        held_out: scores on held-out examples by the trial's number; empty: there are none.
        composition: the best one in which every adapter takes part; ``None``: there was none.
        combined: what a recipe of it says besides its weights.
    """

    space: Space
    trials: tuple[Trial, ...]
    held_out: Mapping[int, Score]
    composition: Composition | None
    combined: Combined = field(repr=False)

    @property
    def best(self) -> Trial | None:
        """The best composition in which every adapter takes part; of equals, the first."""
        return best(self.space, self.trials)

    @property
    def rival(self) -> Trial:
        """The best of everything else; of equals, the first."""
        return rival(self.space, self.trials)

    @property
    def found(self) -> bool:
        """Whether the best composition beats its rival on the dev set."""
        return self.best is not None and self.best.score.value > self.rival.score.value

    @property
    def weights(self) -> list[Any] | None:
        """Weights of the best composition, as :meth:`rankloom.client.Client.compose` takes them."""
        return None if self.best is None else self.space.weights(self.best.weights)

    @property
    def advantage(self) -> Interval | None:
        """By how much the best composition beats its rival on held-out examples, paired."""
        if self.best is None or not self.held_out:
            return None
        return of_difference(self.held_out[self.best.number], self.held_out[self.rival.number])

    @property
    def verdict(self) -> str:
        """The result in words."""
        from rankloom.tune.verdict import verdict

        return verdict(self)

    def name(self, trial: Trial) -> str:
        """Return what was scored, in words."""
        text = self.space.describe(trial.weights)
        return f"{text.removeprefix('1 ')} alone" if trial.kind == "alone" else text

    @property
    def columns(self) -> tuple[str, ...]:
        """Heads of the columns of :meth:`table`."""
        return COLUMNS

    def table(self) -> tuple[tuple[str, ...], ...]:
        """Return one row of texts for the base, each adapter alone, and what is compared.

        A mean of examples is followed by its 95 % interval. That of the dev set does not know that
        the best of many was picked on it; that of held-out examples has nothing to know.
        """
        picked = [trial for trial in self.trials if trial.kind != "composition"]
        picked += [one for one in (self.rival, self.best) if one is not None and one not in picked]
        return tuple(self._row(trial) for trial in picked)

    def _row(self, trial: Trial) -> tuple[str, ...]:
        held = self.held_out.get(trial.number)
        against = held and of_difference(held, self.held_out[self.rival.number])
        mark = "" if trial is self.rival or against is None else str(against)
        dev = _text(trial.score)
        return self.name(trial), dev, "" if held is None else _text(held), mark

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON value."""
        return {
            "schema": 1,
            "found": self.found,
            "verdict": self.verdict,
            "weights": self.weights,
            "best": self.best and self._described(self.best),
            "rival": self._described(self.rival),
            "advantage": self.advantage and self.advantage.to_json(),
            "references": [
                self._described(one) for one in self.trials if one.kind != "composition"
            ],
            "names": list(self.space.names),
            "trials": [trial.to_json() for trial in self.trials],
        }

    def _described(self, trial: Trial) -> dict[str, Any]:
        held = self.held_out.get(trial.number)
        return {
            **trial.to_json(),
            "name": self.name(trial),
            "dev": _json(trial.score),
            "held_out": held and _json(held),
        }

    def plot(self) -> str:
        """Return the scores trial by trial as an SVG document."""
        from rankloom.tune.plot import plot

        return plot(self)

    def recipe(self, folder: str | os.PathLike[str] = ".") -> str:
        """Return the best composition as a recipe, to be kept in ``folder``.

        Raises:
            RefError: there is none.
        """
        from rankloom.tune.recipe import write_recipe

        return write_recipe(self.combined, self.weights, self.verdict, Path(folder))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the recipe to a file, for ``loractl compose`` or ``sdk.compose_recipe``."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.recipe(target.parent), "utf-8")
        return target


def best(space: Space, trials: tuple[Trial, ...]) -> Trial | None:
    """Return the best composition in which every adapter takes part; of equals, the first."""
    found = [one for one in trials if one.kind == "composition" and space.has_all(one.weights)]
    return max(found, key=lambda trial: trial.score.value, default=None)


def rival(space: Space, trials: tuple[Trial, ...]) -> Trial:
    """Return the best of everything else; of equals, the first."""
    found = [one for one in trials if one.kind != "composition" or not space.has_all(one.weights)]
    return max(found, key=lambda trial: trial.score.value)


def _text(score: Score) -> str:
    found = of_score(score)
    return shown(score.value) if found is None else str(found)


def _json(score: Score) -> dict[str, Any]:
    found = of_score(score)
    return {"mean": score.value} if found is None else found.to_json()
