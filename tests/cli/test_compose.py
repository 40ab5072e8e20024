"""compose with methods, ranks and plans, as a person and as a script meet it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from adapter_folder import write_adapter
from command_line import Run, answer
from rankloom.errors import IntegrityError, RefError

LORACTL = Path(sys.executable).with_name("loractl")


def write_other_kind(folder: Path, kind: str, **factors: tuple[int, ...]) -> None:
    """Write an adapter of one module that is no plain LoRA of a linear layer."""
    folder.mkdir()
    prefix = "base_model.model.layer"
    values = {
        f"{prefix}.{name.replace('__', '.')}": np.ones(shape, np.float32)
        for name, shape in factors.items()
    }
    save_file(values, folder / "adapter_model.safetensors")
    config = {"peft_type": kind, "r": 2, "target_modules": ["layer"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def test_the_rank_is_that_of_what_has_one(run: Run, place: Path) -> None:
    kernels = {"lora_A__weight": (2, 3, 3, 3), "lora_B__weight": (4, 2, 1, 1)}
    for name in ("one", "two"):
        write_other_kind(place / name, "LORA", **kernels)
    assert "1 targets, rank 4\n" in run("compose", "./one", "./two", "-o", "both").stdout
    assert json.loads((place / "both/adapter_config.json").read_text())["r"] == 4
    hadamard = {
        f"hada_w{side}": (4, 2) if side[-1] == "a" else (2, 4)
        for side in ("1_a", "1_b", "2_a", "2_b")
    }
    write_other_kind(place / "loha", "LOHA", **hadamard)
    assert "1 targets\n" in run("compose", "./loha", "-o", "product").stdout
    assert answer(run("compose", "./loha", "-o", "again", "--json"))["ranks"] == []


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


RECIPE = """\
base_model: ./base
adapters:
  - adapter: zh
    parameters: {weight: [0.5, 1]}
  - adapter: ./qa
merge_method: dare_ties
parameters: {density: 0.5, seed: 7}
output: {rank: 4}
"""


def test_a_recipe_file_is_the_composition(run: Run, place: Path) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    (place / "recipe.yaml").write_text(RECIPE)
    run("compose", "recipe.yaml", "-o", "made", "--push", "both")
    lock = json.loads((place / "made/rankloom.json").read_text())["lock"]
    assert lock["parts"][0]["weight"] == {
        "targets": {
            "model.layers.0.self_attn.q_proj.weight": 0.5,
            "model.layers.1.self_attn.q_proj.weight": 1.0,
        }
    }
    assert lock["random"] == "splitmix64-halves/1"
    assert "dare_ties(" in run("compose", "recipe.yaml", "--plan").stdout
    run("apply", "recipe.yaml", "--base", "base", "-o", "merged")
    said = run("compose", "recipe.yaml", "--weights", "1,2", "-o", "no", code=2).stderr
    assert "the recipe says everything" in said
    (place / "recipe.yaml").write_text(RECIPE.replace("density", "desnity"))
    said = run("compose", "recipe.yaml", "-o", "no", code=RefError.exit_code).stderr
    assert "recipe.yaml, line 7: " in said
    assert "perhaps density" in said


def test_a_lock_is_made_again_byte_for_byte_or_not_at_all(run: Run, place: Path) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    (place / "recipe.yaml").write_text(RECIPE)
    run("compose", "recipe.yaml", "-o", "made")
    # Another version under the same name: the lock still means the first.
    write_adapter(place / "zh", seed=9)
    run("push", "./zh", "zh", "--base", "./base")
    made = (place / "made/adapter_model.safetensors").read_bytes()
    for threads in ("1", "2"):
        again = f"again-{threads}"
        subprocess.run(
            [LORACTL, "compose", "recipe.yaml", "--locked", "made", "-o", again],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
        )
        assert (place / again / "adapter_model.safetensors").read_bytes() == made
    shutil.copy(place / "made/rankloom.json", place / "both.lock")
    assert "every byte" in run("compose", "zh", "./qa", "--locked", "both.lock").stdout
    (place / "recipe.yaml").write_text(RECIPE.replace("seed: 7", "seed: 8"))
    code = IntegrityError.exit_code
    said = run("compose", "recipe.yaml", "--locked", "made", "-o", "no", code=code).stderr
    assert "differ in parameters" in said
    said = run("compose", "./qa", "./qa", "--locked", "made", "-o", "no", code=code).stderr
    assert "MRG008 ./qa is sha256:" in said
    record = json.loads((place / "both.lock").read_text())
    record["files"][1]["digest"] = "sha256:" + "0" * 64
    (place / "both.lock").write_text(json.dumps(record))
    said = run("compose", "zh", "./qa", "--locked", "both.lock", "-o", "no", code=code).stderr
    assert "adapter_model.safetensors differ" in said
    assert not (place / "no").exists()
    run("compose", "zh", "./qa", "--locked", "./base/config.json", "-o", "no", code=2)
    run("compose", "zh", "./qa", "--locked", "nowhere", "-o", "no", code=4)
