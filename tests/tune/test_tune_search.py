from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import tune_cases
from rankloom import sdk
from rankloom.errors import ConflictError, EvaluationError, IntegrityError, RefError
from tune_cases import OPTIMUM, bits, distance, network, outcome, plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings(
    "ignore:BASE001 identity of .* not checked:rankloom.errors.RankloomWarning"
)


def test_the_optimum_of_a_quadratic_is_found(folders: list[Path], model: nn.Module) -> None:
    kept = bits(model)
    tuned = sdk.tune(folders, evaluate=distance(model, folders, plain), model=model, trials=120)
    assert tuned.best is not None
    # The score is quadratic with its top there; after 120 trials the search is this narrow.
    assert tuned.best.weights == pytest.approx(tuple(OPTIMUM.values()), abs=0.01)
    assert tuned.found
    assert bits(model) == kept


def test_one_adapter_has_a_best_weight_too(folders: list[Path], model: nn.Module) -> None:
    def optimum(name: str, target: str) -> float:
        del target
        return {"one": -0.4, "two": 0.0}[name]

    scored = distance(model, folders, optimum)
    tuned = sdk.tune(folders[:1], evaluate=scored, model=model, bounds=(-1, 1), trials=80)
    assert tuned.best is not None
    # As above, after 80 trials.
    assert tuned.best.weights == pytest.approx([-0.4], abs=0.01)


def test_groups_and_bands_have_optima_of_their_own(folders: list[Path], model: nn.Module) -> None:
    def optimum(name: str, target: str) -> float:
        upper = int(target.split(".")[2]) >= 2
        return OPTIMUM[name] - 0.3 * upper + 0.2 * ("mlp" in target)

    tuned = sdk.tune(
        folders,
        evaluate=distance(model, folders, optimum),
        model=model,
        groups=["self_attn"],
        bands=2,
        trials=700,
    )
    assert tuned.best is not None
    found = dict(zip(tuned.space.names, tuned.best.weights, strict=True))
    wanted = {}
    for folder in folders:
        for text, mlp in (("self_attn ", 0.0), ("", 0.2)):
            for band in (1, 2):
                value = OPTIMUM[folder.name] - 0.3 * (band == 2) + mlp
                wanted[f"{folder} {text}{band}/2"] = value
    # Eight weights at once: the last steps of the search are wider than with two.
    assert found == pytest.approx(wanted, abs=0.05)
    recipe = folders[0].parent / "found.yaml"
    again = sdk.compose_recipe(tuned.save(recipe))
    assert tuned.composition is not None
    assert again.lock == tuned.composition.lock


def test_every_trial_is_the_exact_composition(folders: list[Path], model: nn.Module) -> None:
    seen: list[dict[str, bytes]] = []

    def evaluate(changed: nn.Module) -> float:
        seen.append(bits(changed))
        return float(len(seen))

    tuned = sdk.tune(folders, evaluate=evaluate, model=model, trials=5)
    for trial, found in zip(tuned.trials, seen, strict=True):
        if trial.kind == "base":
            assert found == bits(model)
            continue
        used = [one for one in zip(folders, trial.weights, strict=True) if one[1]]
        composition = sdk.compose([one for one, _ in used], [weight for _, weight in used])
        with composition.apply(model):
            assert bits(model) == found


def test_two_processes_agree_and_a_killed_one_goes_on(folders: list[Path], tmp_path: Path) -> None:
    def run(journal: str, die_at: int) -> subprocess.CompletedProcess[str]:
        given = map(str, (tmp_path, tmp_path / journal, die_at))
        command = [sys.executable, tune_cases.__file__, *given]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    whole = run("whole", 0)
    assert whole.returncode == 0, whole.stderr
    die_at = random.randint(2, 16)  # noqa: S311 - no secret
    assert run("killed", die_at).returncode == -9
    kept = (tmp_path / "killed").read_bytes()
    assert kept.count(b"\n") == die_at  # what it is, and the scores before
    gone_on = run("killed", 0)
    assert gone_on.stdout == whole.stdout
    assert (tmp_path / "killed").read_bytes().startswith(kept)
    model = network()
    scored = distance(model, folders, plain)
    here = sdk.tune(folders, evaluate=scored, model=model, trials=14, seed=3)
    assert json.loads(json.dumps(outcome(here))) == json.loads(whole.stdout)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_journal_cut_anywhere_gives_the_same_result(
    folders: list[Path], model: nn.Module, tmp_path: Path, share: float
) -> None:
    journal, evaluate = tmp_path / "journal", distance(model, folders, plain)

    def run(trials: int = 8) -> list[object]:
        return outcome(
            sdk.tune(
                folders,
                evaluate=evaluate,
                held_out=evaluate,
                model=model,
                trials=trials,
                journal=journal,
            )
        )

    journal.unlink(missing_ok=True)
    whole, data = run(), journal.read_bytes()
    journal.write_bytes(data[: int(share * len(data))])
    assert run() == whole
    assert run(12)[:11] == whole  # more trials go on with it too


def test_a_journal_of_something_else_is_refused(
    folders: list[Path], model: nn.Module, tmp_path: Path
) -> None:
    journal, evaluate = tmp_path / "journal", distance(model, folders, plain)

    def run(trials: int = 3, **options: object) -> None:
        given = {"evaluate": evaluate, "model": model, "journal": journal, **options}
        sdk.tune(folders, trials=trials, **given)  # type: ignore[arg-type]

    run()
    for other in ({"bands": 2}, {"method": "linear"}, {"groups": ["mlp"]}, {"rank": 2}):
        with pytest.raises(ConflictError, match="of something else"):
            run(**other)
    with pytest.raises(ConflictError, match="the base alone scores"):
        run(4, evaluate=lambda changed: [0.5 * one for one in evaluate(changed)])
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"{}\n", *lines[1:]]))
    with pytest.raises(IntegrityError, match="damaged"):
        run()


def test_another_search_takes_the_scores_that_are_there(
    folders: list[Path], model: nn.Module, tmp_path: Path
) -> None:
    scored, asked = distance(model, folders, plain), 0

    def evaluate(changed: nn.Module) -> list[float]:
        nonlocal asked
        asked += 1
        return scored(changed)

    def run(grid: list[float]) -> list[object]:
        tuned = sdk.tune(
            folders, evaluate=evaluate, model=model, grid=grid, journal=tmp_path / "journal"
        )
        return outcome(tuned)

    run([0.5, 1])
    assert asked == 3 + 4
    wider = run([0.25, 0.5, 1])
    assert asked == 7 + 1 + 5  # the base once more, and what is new
    (tmp_path / "journal").unlink()
    assert run([0.25, 0.5, 1]) == wider


def test_an_evaluation_that_raises_restores_and_keeps_the_journal(
    folders: list[Path], model: nn.Module, tmp_path: Path
) -> None:
    kept, journal, scored = bits(model), tmp_path / "journal", distance(model, folders, plain)
    left = 5

    def evaluate(changed: nn.Module) -> list[float]:
        nonlocal left
        left -= 1
        if not left:
            raise ZeroDivisionError
        return scored(changed)

    with pytest.raises(ZeroDivisionError):
        sdk.tune(folders, evaluate=evaluate, model=model, journal=journal)
    assert bits(model) == kept
    assert journal.read_bytes().count(b"\n") == 5  # four scores


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (float("nan"), "nan"),
        ([1.0, float("inf")], "inf"),
        ([], "no example"),
        ("1", "'1'"),
        (None, "None"),
    ],
)
def test_what_is_no_score_is_an_error_that_names_the_trial(
    folders: list[Path], model: nn.Module, bad: object, says: str
) -> None:
    kept = bits(model)
    given: Iterator[object] = iter([1.0, 1.0, 1.0, bad])
    with pytest.raises(EvaluationError, match=rf"trial 3, 1 .*one \+ 1 .*two gave {says}"):
        sdk.tune(folders, evaluate=lambda _: next(given), model=model)
    assert bits(model) == kept


def test_trials_are_scored_on_the_same_examples(folders: list[Path], model: nn.Module) -> None:
    given = iter([[1.0, 2.0], [1.0, 2.0, 3.0]])
    with pytest.raises(EvaluationError, match="on 3 examples, others on 2"):
        sdk.tune(folders, evaluate=lambda _: next(given), model=model)


def test_tensors_arrays_and_numbers_are_scores(folders: list[Path], model: nn.Module) -> None:
    same: list[object] = [torch.tensor([1.0, 3.0]), torch.tensor([1, 3]).numpy(), [True, 3]]
    for one in same:
        given = iter([one] * 4)
        tuned = sdk.tune(folders, evaluate=lambda _: next(given), model=model, grid=[1])  # noqa: B023
        assert tuned.trials[0].score.examples == (1.0, 3.0)
    tuned = sdk.tune(folders, evaluate=lambda _: torch.tensor(2.0), model=model, grid=[1])
    assert (tuned.trials[0].score.value, tuned.trials[0].score.examples) == (2.0, ())


def test_a_grid_tries_every_combination_once(folders: list[Path], model: nn.Module) -> None:
    scored = distance(model, folders, plain)
    tuned = sdk.tune(folders, evaluate=scored, model=model, grid=[0, 0.5, 1])
    tried = [trial.weights for trial in tuned.trials]
    # The base and both alone are the corners of the grid, so nothing is scored twice.
    assert sorted(tried) == sorted({(a, b) for a in (0, 0.5, 1) for b in (0, 0.5, 1)})
    assert tuned.best is not None
    assert tuned.best.weights == (0.5, 1)
    with pytest.raises(RefError, match="are 9 compositions"):
        sdk.tune(folders, evaluate=scored, model=model, grid=[0, 0.5, 1], trials=8)


def test_other_methods_are_tuned_too(folders: list[Path], model: nn.Module) -> None:
    scored = distance(model, folders, plain)
    options: dict[str, object] = {"method": "ties", "density": 0.5}
    tuned = sdk.tune(folders, evaluate=scored, model=model, trials=4, **options)  # type: ignore[arg-type]
    kinds = [trial.kind for trial in tuned.trials]
    assert kinds == ["base", "alone", "alone", *["composition"] * 4]
    assert tuned.composition is not None
    assert tuned.composition.lock.parameters["density"] == 0.5
    assert sdk.compose_recipe(tuned.save(folders[0].parent / "r.yaml")).lock == (
        tuned.composition.lock
    )


def test_a_group_that_is_in_no_target_is_refused(folders: list[Path], model: nn.Module) -> None:
    def run(**options: object) -> None:
        sdk.tune(folders, evaluate=lambda _: 0.0, model=model, **options)  # type: ignore[arg-type]

    with pytest.raises(RefError, match="no target has 'attenton'"):
        run(groups=["attenton"])
    with pytest.raises(RefError, match="cannot be cut into 5 bands"):
        run(bands=5)
    with pytest.raises(RefError, match="no weight lies between 1 and 0"):
        run(bounds=(1, 0))
    with pytest.raises(RefError, match="no weight lies between 0 and inf"):
        run(bounds=(0, float("inf")))
    with pytest.raises(RefError, match="0 trials"):
        run(trials=0)
    with pytest.raises(RefError, match="no folder of a base"):
        run(checkpoints=True)
