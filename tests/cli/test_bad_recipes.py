"""Recipes that must not be composed: each is refused in words of its own, with file and line."""

import shutil
from pathlib import Path

import pytest

from adapter_folder import write_adapter
from command_line import Run
from rankloom import sdk
from rankloom.errors import RankloomError

TWO = "adapters:\n  - adapter: ./zh\n  - adapter: ./qa\n"
WEIGHT = "adapters:\n  - adapter: ./zh\n  - adapter: ./qa\n    parameters: {weight: %s}\n"
Q0 = "model.layers.0.self_attn.q_proj.weight"

BAD = {
    "unknown key": (
        TWO + "merge_methd: ties\n",
        "MRG007 r.yaml, line 4: unknown key 'merge_methd'",
        "perhaps merge_method",
    ),
    "unknown key of an adapter": (
        TWO + "    wieght: 1\n",
        "MRG007 r.yaml, line 4: unknown key 'wieght'",
        "known: adapter, parameters",
    ),
    "unknown method": (
        TWO + "merge_method: tis\n",
        "MRG007 r.yaml, line 4: there is no method 'tis'",
        "perhaps ties",
    ),
    "unknown parameter": (
        TWO + "merge_method: ties\nparameters: {desnity: 0.5}\n",
        "MRG007 r.yaml, line 5: the method ties has no parameter 'desnity'",
        "perhaps density",
    ),
    "weight NaN": (
        WEIGHT % ".nan",
        "MRG007 r.yaml, line 4: nan is no weight",
        "finite number",
    ),
    "weight infinite": (
        WEIGHT % "-.inf",
        "MRG007 r.yaml, line 4: -inf is no weight",
        "finite number",
    ),
    "weight a text": (
        WEIGHT % "much",
        "MRG007 r.yaml, line 4: 'much' is no weight",
        "finite number",
    ),
    "density 0": (
        TWO + "merge_method: ties\nparameters:\n  density: 0\n",
        "MRG007 r.yaml, line 6: density is 0",
        "above 0 and at most 1",
    ),
    "density missing": (
        TWO + "merge_method: ties\n",
        "MRG007 r.yaml, line 4: the method ties needs density",
        "a number above 0 and at most 1",
    ),
    "density missing of one": (
        "adapters:\n  - adapter: ./zh\n    parameters: {density: 0.5}\n  - adapter: ./qa\n"
        "merge_method: ties\n",
        "MRG007 r.yaml, line 4: ./qa has no density, and there is none for all",
        "give it density",
    ),
    "a recipe in a recipe": (
        "adapters:\n  - adapter: ./other.yaml\n",
        "MRG007 r.yaml, line 2: ./other.yaml is a recipe, not an adapter",
        "loractl compose ./other.yaml -o DIR",
    ),
    "a recipe in itself": (
        "adapters:\n  - adapter: ./zh\n  - adapter: ./r.yaml\n",
        "MRG007 r.yaml, line 3: ./r.yaml is a recipe, not an adapter",
        "loractl compose ./r.yaml -o DIR",
    ),
    "no such folder": (
        TWO + "  - adapter: ./en\n",
        "r.yaml, line 4: there is no adapter folder en",
        "adapter_config.json",
    ),
    "no such version": (
        TWO + "  - adapter: en:prod\n",
        "r.yaml, line 4: there is no adapter en",
        "",
    ),
    "no such base": (
        "base_model: ./nothing\n" + TWO,
        "r.yaml, line 1: there is no base folder nothing",
        "",
    ),
    "yanked": (
        TWO + "  - adapter: old@v1\n",
        "MRG010 r.yaml, line 4: old@v1 was yanked: wrong data",
        "--locked",
    ),
    "rank of the sum over an engine's": (
        TWO + "output:\n  engines: ['vllm,max_lora_rank=1']\n",
        f"ENG001 r.yaml, line 5: {Q0} has rank 6, and vllm,max_lora_rank=1 takes at most 1",
        "bring it to rank 1",
    ),
    "rank over an engine's": (
        TWO + "output:\n  engines: ['vllm,max_lora_rank=1']\n  rank: 2\n",
        f"ENG001 r.yaml, line 6: {Q0} has rank 2, and vllm,max_lora_rank=1 takes at most 1",
        "bring it to rank 1",
    ),
    "unknown engine": (
        TWO + "output: {engines: [vlm]}\n",
        "MRG007 r.yaml, line 4: 'vlm' is no engine that is known",
        "perhaps vllm",
    ),
    "an engine that cannot be set so": (
        TWO + "output: {engines: 'vllm==0.33,max_lora_rank=24'}\n",
        "MRG007 r.yaml, line 4: vllm has no max_lora_rank of 24",
        "one of 1, 8, 16",
    ),
    "no rank": (
        TWO + "output: {rank: 0}\n",
        "MRG007 r.yaml, line 4: 0 is not a rank",
        "a whole number from 1",
    ),
    "flag": (
        TWO + "allow_no_effect: maybe\n",
        "MRG007 r.yaml, line 4: allow_no_effect is 'maybe'",
        "true or false",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_recipe_is_refused_with_its_line(run: Run, place: Path, name: str) -> None:
    recipe, message, hint = BAD[name]
    (place / "r.yaml").write_text(recipe)
    (place / "other.yaml").write_text(TWO)
    if name == "yanked":
        run("push", "./zh", "old", "--base", "./base")
        run("yank", "old@v1", "--reason", "wrong data")
    with pytest.raises(RankloomError) as caught:
        sdk.compose_recipe("r.yaml").save("out")
    assert caught.value.message == message
    assert hint in caught.value.hint
    said = run("compose", "r.yaml", "-o", "out", code=caught.value.exit_code).stderr
    assert message in " ".join(said.split())
    assert not (place / "out").exists()


def test_different_bases_are_refused_with_the_second_ones_line(run: Run, place: Path) -> None:
    shutil.copytree(place / "base", place / "base2")
    weights = place / "base2/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    run("push", "./zh", "zh", "--base", "./base")
    run("push", "./qa", "qa", "--base", "./base2")
    (place / "r.yaml").write_text("adapters:\n  - adapter: zh\n  - adapter: qa\n")
    with pytest.raises(RankloomError) as caught:
        sdk.compose_recipe("r.yaml")
    start = "MRG001 r.yaml, line 3: zh and qa were made for different bases: exact "
    assert caught.value.message.startswith(start)
    (place / "r.yaml").write_text("base_model: ./base\nadapters:\n  - adapter: qa\n")
    with pytest.raises(RankloomError) as caught:
        sdk.compose_recipe("r.yaml")
    start = "BASE003 r.yaml, line 3: qa was made for another base than the one given: exact "
    assert caught.value.message.startswith(start)


def test_a_locked_composition_of_a_yanked_part_is_made_again(run: Run, place: Path) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    (place / "r.yaml").write_text("adapters:\n  - adapter: zh@v1\n  - adapter: ./qa\n")
    run("compose", "r.yaml", "-o", "made")
    run("yank", "zh@v1", "--reason", "wrong data")
    run("compose", "r.yaml", "-o", "no", code=5)
    again = run("compose", "r.yaml", "--locked", "made")
    assert "every byte is as the lock says" in again.stdout
    assert "yanked: wrong data" in again.stderr


def test_a_locked_composition_is_made_again_when_its_name_was_taken_elsewhere(
    run: Run, place: Path
) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    (place / "r.yaml").write_text("adapters:\n  - adapter: zh@v1\n  - adapter: ./qa\n")
    run("compose", "r.yaml", "-o", "made")
    run("push", "./qa", "stranger/zh", "--base", "./base")
    refused = run("compose", "r.yaml", "-o", "no", code=2).stderr
    assert "REG005 r.yaml, line 2: zh may mean default/zh, stranger/zh" in refused
    assert "REG005 zh may mean" in run("show", "zh", code=2).stderr
    assert "every byte is as the lock says" in run("compose", "r.yaml", "--locked", "made").stdout


def test_engines_and_effects_are_options_beside_a_recipe(run: Run, place: Path) -> None:
    write_adapter(place / "wide", seed=3, rank=16)
    wide = ("compose", "./zh", "./wide", "-o", "out")
    said = run(*wide, "--engine", "vllm==0.33", code=7).stderr
    assert f"ENG001 {Q0} has rank 20, and vllm==0.33 takes at most 16" in " ".join(said.split())
    assert "vllm==0.33,max_lora_rank=512" in " ".join(said.split())
    said = run(*wide, "--rank", "energy=0.9999999", "--engine", "vllm,max_lora_rank=1", code=7)
    assert "ENG001 the result has rank 8, and vllm,max_lora_rank=1 takes at most 1" in said.stderr
    run(*wide, "--engine", "vllm,max_lora_rank=32", "--engine", "llama.cpp")
    (place / "r.yaml").write_text("adapters:\n  - adapter: ./zh\n  - adapter: ./wide\n")
    run("compose", "r.yaml", "--engine", "vllm", "-o", "no", code=7)
    run("compose", "r.yaml", "--allow-no-effect", "-o", "yes")
