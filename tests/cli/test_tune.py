"""The search for weights, as a person and as a script meet it."""

import json
import re
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from adapter_folder import MODULES
from command_line import Run, answer
from rankloom import sdk

pytestmark = pytest.mark.filterwarnings(
    "ignore:BASE001 identity of .* not checked:rankloom.errors.RankloomWarning"
)

COMMAND = """
import json, os, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import load_file
goal = load_file("goal/model.safetensors")
assert os.environ["RANKLOOM_CHECKPOINT"] == sys.argv[-1]
found = load_file(sys.argv[-1] + "/model.safetensors")
print("loading")
print(json.dumps([-float(np.square(found[name] - goal[name]).sum()) for name in goal]))
"""

MODULE = """
import torch
from safetensors.torch import load_file
from torch import nn

GOAL = load_file("goal/model.safetensors")

def load(base):
    model = nn.Module()
    for name, tensor in load_file(f"{base}/model.safetensors").items():
        *path, last, _ = name.split(".")
        where = model
        for word in path:
            if not hasattr(where, word):
                where.add_module(word, nn.Module())
            where = getattr(where, word)
        layer = nn.Linear(*tensor.shape, bias=False)
        layer.weight = nn.Parameter(tensor)
        where.add_module(last, layer)
    return model

def dev(model):
    found = model.state_dict()
    return [-float((found[name] - GOAL[name]).square().sum()) for name in GOAL]

def flat(model):
    return 1.0
"""


@pytest.fixture
def goal(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint that one composition gives, and what scores how near to it another is."""
    sdk.compose(["./zh", "./qa"], [0.5, 1]).apply_to("./base", "./goal")
    (place / "score.py").write_text(COMMAND)
    (place / "judge.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "judge", raising=False)
    return place


def test_a_function_scores_the_live_model(run: Run, goal: Path) -> None:
    names = ("--evaluate", "judge:dev", "--held-out", "judge:dev", "--load", "judge:load")
    grid = ("--grid", "0.5,1", "-o", "found.yaml", "--plot", "plot.svg")
    said = run("tune", "./zh", "./qa", "--base", "./base", *names, *grid)
    assert re.search(r"Found on the dev set: 0\.5 \./zh \+ 1 \./qa, -?0\.0000", said.stdout)
    assert "trial 0: 0, 0 scores" in said.stderr
    assert (goal / "plot.svg").read_text().startswith("<svg")
    run("apply", "found.yaml", "--base", "./base", "-o", "merged")
    merged, wanted = (load_file(goal / name / "model.safetensors") for name in ("merged", "goal"))
    assert all((merged[f"{one}.weight"] == wanted[f"{one}.weight"]).all() for one in MODULES)


def test_a_command_scores_checkpoints(run: Run, goal: Path) -> None:
    command = ("--command", f"{sys.executable} score.py")
    given = ("tune", "./zh", "./qa", "--base", "./base", *command, "--grid", "0.5,1", "--json")
    report = answer(run(*given))
    assert report["found"] is True
    assert report["weights"] == [0.5, 1.0]
    assert report["best"]["dev"]["high"] <= 0
    assert len(report["trials"]) == 3 + 4
    named = answer(run(*given[:-4], f"{sys.executable} score.py {{}}", *given[-3:]))
    assert [one["score"] for one in named["trials"]] == [one["score"] for one in report["trials"]]


def test_nothing_found_ends_with_1_and_writes_no_recipe(run: Run, goal: Path) -> None:
    names = ("--evaluate", "judge:flat", "--load", "judge:load", "-o", "found.yaml")
    said = run("tune", "./zh", "./qa", "--base", "./base", *names, "--trials", "2", code=1)
    assert "Not found: no composition of all adapters beats" in said.stdout
    assert not (goal / "found.yaml").exists()


def test_a_journal_goes_on(run: Run, goal: Path) -> None:
    names = ("--evaluate", "judge:dev", "--load", "judge:load", "--journal", "j.jsonl", "--json")
    given = ("tune", "./zh", "./qa", "--base", "./base", *names)
    first = answer(run(*given, "--trials", "4"))
    more = answer(run(*given, "--trials", "6"))
    assert more["trials"][:7] == first["trials"]
    assert (goal / "j.jsonl").read_text().count("\n") == 1 + 3 + 6


def test_options_reach_the_search(run: Run, goal: Path) -> None:
    names = ("--evaluate", "judge:dev", "--load", "judge:load", "--json", "--trials", "1")
    more = ("--group", "self_attn", "--bands", "2", "--bounds", "2,3", "--rank", "2")
    given = ("tune", "./zh", "./qa", "--base", "./base", *names, *more, "--journal", "j")
    report = json.loads(run(*given, code=1).stdout)
    assert all(2 <= weight <= 3 for weight in report["best"]["weights"])
    assert report["names"] == [
        f"./{name} self_attn {band}/2" for name in ("zh", "qa") for band in (1, 2)
    ]
    head = json.loads((goal / "j").read_text().splitlines()[0])["tune"]
    assert head["lock"]["rank"] == "2"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((), "say what scores a model"),
        (("--evaluate", "judge:dev", "--command", "true"), "say what scores a model"),
        (("--evaluate", "judge:nothing"), "names no function"),
        (("--evaluate", "nowhere"), "names no function"),
        (("--evaluate", "judge:GOAL"), "is no function"),
        (("--evaluate", "judge:dev", "--bounds", "1"), "lowest and a highest"),
    ],
)
def test_wrong_usage_is_said(run: Run, goal: Path, given: tuple[str, ...], says: str) -> None:
    assert says in run("tune", "./zh", "./qa", "--base", "./base", *given, code=2).stderr


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("raise SystemExit(7)", "ended with 7"),
        ("print('good')", "printed 'good' last, which is no score"),
        ("pass", "printed 'nothing' last"),
        ("print('NaN')", "the evaluation of the base alone gave nan"),
    ],
)
def test_a_command_that_gives_no_score_ends_the_search(
    run: Run, goal: Path, script: str, says: str
) -> None:
    (goal / "bad.py").write_text(script)
    command = ("--command", f"{sys.executable} bad.py")
    given = ("tune", "./zh", "./qa", "--base", "./base", *command, "--json")
    error = json.loads(run(*given, code=3).stdout)["error"]
    assert error["code"] == "evaluation-failed"
    assert says in error["message"]


def test_a_command_that_is_not_there(run: Run, goal: Path) -> None:
    given = ("tune", "./zh", "./qa", "--base", "./base", "--command", "./nowhere")
    assert "./nowhere cannot be run" in run(*given, code=3).stderr
