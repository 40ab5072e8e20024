"""compose with methods, ranks and plans, as a person and as a script meet it."""

import json
import subprocess
import sys
from pathlib import Path

from command_line import Run, answer
from rankloom.errors import RefError

LORACTL = Path(sys.executable).with_name("loractl")


def test_a_rank_says_what_is_lost(run: Run, place: Path) -> None:
    said = run("compose", "./zh", "./qa", "--rank", "3", "-o", "three").stdout
    assert "2 targets, rank 3" in said
    assert "rank 3 keeps " in said
    assert "the optimum" in said
    report = answer(run("compose", "./zh", "./qa", "--rank", "3", "-o", "again", "--json"))
    assert report["ranks"] == [3]
    assert 0 < report["errors"][0]["relative_error"] < 1
    assert [loss["name"] for loss in report["errors"][1:]] == [
        f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)
    ]
    one, two = (place / name / "adapter_model.safetensors" for name in ("three", "again"))
    assert one.read_bytes() == two.read_bytes()


def test_methods_take_parameters(run: Run, place: Path) -> None:
    method = ("--method", "ties", "--parameter", "density=0.5", "--parameter", "vote=count")
    run("compose", "./zh", "./qa", *method, "--rank", "8", "-o", "ties")
    lock = json.loads((place / "ties/rankloom.json").read_text())["lock"]
    assert lock["parameters"] == {
        "density": 0.5,
        "divide_by": "weights",
        "lambda": 1.0,
        "sign_election": "weighted",
        "vote": "count",
    }
    run("apply", "./zh", "./qa", *method, "--base", "base", "-o", "merged")
    refused = run("compose", "./zh", "./qa", *method, "-o", "no", code=6).stderr
    assert "rank=" in refused
    assert "loractl apply" in refused
    wrong = ("--method", "ties", "--parameter", "denisty=0.5")
    said = run("compose", "./zh", "./qa", *wrong, "-o", "no", code=RefError.exit_code).stderr
    assert "perhaps density" in said
    run("compose", "./zh", "./qa", "--parameter", "density", "-o", "no", code=2)


def test_a_plan_is_made_without_torch(place: Path) -> None:
    code = (
        "import sys; from loractl.main import main;"
        "main(sys.argv[1:], standalone_mode=False);"
        "assert 'torch' not in sys.modules"
    )
    command = ["compose", "./zh", "./qa", "--method", "slerp", "--parameter", "t=0.5", "--plan"]
    found = subprocess.run(
        [sys.executable, "-c", code, *command], check=True, capture_output=True, text=True
    ).stdout
    assert "slerp(t=0.5): 1·./zh + 1·./qa; 2 targets, rank up to 6" in found
    assert not [path for path in place.iterdir() if path.name not in {"zh", "qa", "base", "home"}]
