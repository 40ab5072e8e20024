"""Verdicts, intervals, and what a result looks like."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

import lora_cases
from lowrank_cases import Case, part, read_checkpoint
from rankloom import sdk
from rankloom.apply.live.attach import Changes, apply_to_model
from rankloom.apply.live.load import load_model
from rankloom.composition import compose
from rankloom.tune.bootstrap import interval, of_difference
from rankloom.tune.held import Held
from rankloom.tune.recipe import Combined
from rankloom.tune.space import Group, Space
from rankloom.tune.trial import Score, Trial
from rankloom.tune.tuned import Tuned
from tune_cases import bits, distance, network, plain

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.tune.trial import Kind

pytestmark = pytest.mark.filterwarnings(
    "ignore:BASE001 identity of .* not checked:rankloom.errors.RankloomWarning"
)
SPACE = Space(("zh", "qa"), ((Group(None),), (Group(None),)))


def result(*trials: tuple[Kind, tuple[float, ...], float], held_out: Any = None) -> Tuned:  # noqa: ANN401
    made = tuple(
        Trial(number, kind, weights, Score(score), 0.0)
        for number, (kind, weights, score) in enumerate(trials)
    )
    return Tuned(SPACE, made, held_out or {}, None, Combined(("zh", "qa")))


def references(base: float, zh: float, qa: float) -> list[tuple[Kind, tuple[float, ...], float]]:
    return [("base", (0, 0), base), ("alone", (1, 0), zh), ("alone", (0, 1), qa)]


def test_a_composition_that_beats_all_is_found() -> None:
    tuned = result(*references(1, 3, 2), ("composition", (0.5, 1), 3.5))
    assert tuned.found
    assert tuned.verdict == (
        "Found on the dev set: 0.5 zh + 1 qa, 3.5000. The best without all adapters: zh alone,"
        " 3.0000."
    )
    held = {number: Score(number) for number in range(4)}
    tuned = result(*references(1, 3, 2), ("composition", (0.5, 1), 3.5), held_out=held)
    assert tuned.verdict.endswith("On held-out examples they score 3.0000 and 1.0000.")


@pytest.mark.parametrize(
    ("trials", "rival"),
    [
        ([*references(1, 3, 2), ("composition", (0.5, 1), 2.9)], "zh alone"),
        ([*references(1, 3, 2), ("composition", (0.5, 1), 3)], "zh alone"),  # no more than equal
        ([*references(4, 3, 2), ("composition", (0.5, 1), 3.9)], "the base alone"),
        # An adapter at another weight is no composition of all, however good it is.
        (
            [
                *references(1, 3, 2),
                ("composition", (1.2, 0), 3.4),
                ("composition", (0.5, 1), 3.2),
            ],
            "1.2 zh",
        ),
    ],
)
def test_nothing_is_found_if_leaving_something_out_is_as_good(
    trials: list[tuple[Kind, tuple[float, ...], float]], rival: str
) -> None:
    tuned = result(*trials)
    assert not tuned.found
    assert tuned.name(tuned.rival) == rival
    assert "no composition of all adapters beats" in tuned.verdict
    assert tuned.to_json()["found"] is False


def test_only_endpoints_are_nothing_at_all() -> None:
    tuned = result(*references(1, 3, 2), ("composition", (0.5, 0), 9))
    assert tuned.best is None
    assert not tuned.found
    assert "no composition of all adapters was tried" in tuned.verdict


@pytest.mark.parametrize(
    ("gain", "says"),
    [(1.0, "better there, too"), (-1.0, "worse there"), (0.0, "cannot tell")],
)
def test_held_out_examples_have_the_last_word(gain: float, says: str) -> None:
    noise = [(-1) ** n * 0.5 for n in range(40)]
    held = {
        number: Score(0, tuple(n + one for n, one in enumerate(added)))
        for number, added in enumerate([[0.0] * 40] * 3 + [[gain + one for one in noise]])
    }
    tuned = result(*references(1, 3, 2), ("composition", (1, 1), 4), held_out=held)
    assert says in tuned.verdict
    assert tuned.advantage is not None
    assert tuned.advantage.mean == pytest.approx(gain)
    [*_, last] = tuned.table()
    assert last[3] == str(tuned.advantage)


def test_the_interval_of_a_large_sample_is_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(3, 2, 4000)
    found = interval(values.tolist())
    half = 1.959964 * statistics.stdev(values) / math.sqrt(len(values))
    # 2000 rounds give a quantile of the mean to about 5 % of its distance.
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random, held = np.random.default_rng(5), 0
    for _ in range(200):
        found = interval(random.normal(0, 1, 60).tolist())
        held += found.low <= 0 <= found.high
    # 190 of 200 are expected, with a deviation of 3; the percentile interval is a little narrow.
    assert 178 <= held <= 199


def test_pairs_take_out_how_hard_an_example_is() -> None:
    hard = np.random.default_rng(2).normal(0, 10, 50)
    one, two = Score(0, tuple(hard + 0.1)), Score(0, tuple(hard))
    found = of_difference(one, two)
    assert found is not None
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)


def test_the_plot_has_a_dot_for_each_trial() -> None:
    tuned = result(
        *references(1, 3, 2),
        ("composition", (0.5, 1), 2.5),
        ("composition", (0.5, 0), 2.6),
        ("composition", (0.6, 1), 3.5),
    )
    root = ET.fromstring(tuned.plot())  # noqa: S314 - our own
    circles = root.findall(".//{*}circle")
    heights = [float(circle.attrib["cy"]) for circle in circles]
    order = sorted(range(6), key=lambda n: -heights[n])
    assert order == [0, 2, 3, 4, 1, 5]  # higher scores stand higher
    assert len({circle.attrib["fill"] for circle in circles}) == 2


def test_checkpoints_score_as_the_live_model_does(tmp_path: Path) -> None:
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        vocab_size=30,
        architectures=["BertModel"],
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(tmp_path / "base")
    shapes = {f"encoder.layer.{n}.attention.self.query": (16, 16) for n in range(2)}
    folders = [Case(shapes, seed=seed).write(tmp_path / f"a{seed}") for seed in (1, 2)]

    def total(tensors: dict[str, torch.Tensor]) -> float:
        return float(tensors["encoder.layer.1.attention.self.query.weight"].double().sum())

    def live(model: nn.Module) -> float:
        assert isinstance(model, BertModel)
        assert not model.training
        return total(model.state_dict())

    def written(folder: Path) -> float:
        return total(read_checkpoint(folder))

    base = tmp_path / "base"
    one = sdk.tune(folders, evaluate=live, base=base, trials=4)
    two = sdk.tune(folders, evaluate=written, base=base, trials=4, checkpoints=True)
    assert [trial.score for trial in one.trials] == [trial.score for trial in two.trials]
    assert "base_model: ./base" in one.recipe(tmp_path)
    tuned = sdk.tune(folders, evaluate=live, base=base, model=load_model(base), trials=4)
    assert [trial.score for trial in one.trials] == [trial.score for trial in tuned.trials]


def test_held_factors_give_the_same_bits(tmp_path: Path) -> None:
    targets: dict[str, Any] = {
        "target_modules": ["lin", "emb", "head.0"],
        "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
    }
    one = lora_cases.write(tmp_path / "one", dtype=torch.bfloat16, **targets)
    two = lora_cases.write(tmp_path / "two", dtype=torch.float32, r=3, **targets)
    composition = compose([part(one.folder), part(two.folder)], [0.7, -1.3])
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        model, held = two.base.to(dtype), Held()
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        with composition.apply(model) as handle:
            wanted = {name: value.clone() for name, value in model.state_dict().items()}
        assert len(handle.targets) == 5
        for _ in range(2):
            with apply_to_model(model, Changes(held.hold(composition.changes))):
                found = model.state_dict()
                assert all(torch.equal(found[name], wanted[name]) for name in wanted)
                assert not all(torch.equal(found[name], kept[name]) for name in wanted)
            assert all(torch.equal(value, kept[n]) for n, value in model.state_dict().items())


def test_factors_are_read_once(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from rankloom.change import evaluate

    reads: list[str] = []
    real = evaluate.read_finite

    def counted(entry: Any, rows: range | None = None) -> torch.Tensor:  # noqa: ANN401
        reads.append(entry.name)
        return real(entry, rows)

    monkeypatch.setattr(evaluate, "read_finite", counted)
    model = network()
    kept = bits(model)
    sdk.tune(folders, evaluate=distance(model, folders, plain), model=model, trials=6)
    assert len(reads) == 2 * 2 * 8  # A and B of two adapters and eight targets
    assert bits(model) == kept
