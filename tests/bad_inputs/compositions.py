"""Rows of compositions, and of what is written."""

from __future__ import annotations

from bad_inputs.pairs import (
    ONE,
    TWO,
    dora,
    nothing,
    occupied,
    of_two_bases,
    recipe,
    saved,
    too_large,
    twice,
    two,
    untouched,
    weighted,
    yanked,
)
from bad_inputs.row import Never, Row

BOTH = ("compose", "./one", "./two", "-o", "out")
APPLY = ("apply", "./adapter", "--base", "./base", "-o", "out")

ROWS = (
    Row(
        69,
        "sum beyond float16",
        too_large,
        "NUM004",
        (*APPLY, "--dtype", "float16"),
        7,
        then=nothing,
    ),
    Row(82, "adapters of two bases", of_two_bases, "MRG001", BOTH, 7, then=nothing),
    Row(
        83,
        "two ranks for a method that adds factors",
        two({}, {"r": 4}),
        "MRG002",
        (*BOTH, "--method", "peft_linear"),
        7,
        says="use the method exact, which takes any ranks",
        then=nothing,
    ),
    *(
        Row(84, f"weights {text}", two({}, {}), "MRG003", (*BOTH, f"--weights={text}"), 2)
        for text in ("1", "1,2,3")
    ),
    *(
        Row(85, f"weight {text}", two({}, {}), "MRG003", (*BOTH, f"--weights=1,{text}"), 2)
        for text in ("nan", "inf", "-inf")
    ),
    Row(
        85,
        "weight 11",
        two({}, {}),
        "MRG003",
        (*BOTH, "--weights=1,11"),
        0,
        severity="warning",
        then=weighted(1, 11),
    ),
    Row(86, "the same adapter twice", twice, "MRG004", BOTH, 0, "warning", then=weighted(1, 1)),
    Row(87, "DoRA without a base", two(dora(), {}), "MRG012", BOTH, 6, then=nothing),
    Row(87, "one head saved by two", two(saved(1), saved(2)), "MRG005", BOTH, 7, then=nothing),
    Row(
        88,
        "rsLoRA and LoRA of other ranks",
        two({"r": 3, "use_rslora": True, "lora_alpha": 5}, {"r": 5, "lora_alpha": 7}),
        "",
        (*BOTH, "--weights=0.7,-0.3"),
        0,
        then=weighted(0.7, -0.3),
    ),
    Row(
        89,
        "disjoint modules",
        two({"shapes": ONE}, {"shapes": TWO}),
        "",
        BOTH,
        0,
        then=weighted(1, 1),
    ),
    Row(
        90,
        "rank of the sum beyond the engine's",
        two({"r": 16}, {"r": 16}),
        "ENG001",
        (*BOTH, "--engine", "vllm==0.33"),
        7,
        then=nothing,
    ),
    Row(
        91,
        "a recipe in itself",
        recipe("adapters: [{adapter: ./one}, {adapter: ./r.yaml}]\n"),
        "MRG007",
        ("compose", "r.yaml", "-o", "out"),
        2,
        then=nothing,
    ),
    Row(
        91,  # MRG006 is the id of filters that decide nothing
        "a part that was yanked",
        yanked,
        "MRG010",
        ("compose", "old@v1", "./two", "-o", "out"),
        5,
        says="wrong data",
        then=nothing,
    ),
    Row(92, "composed onto files", occupied(two({}, {})), "REG006", BOTH, 5, then=untouched),
    Row(92, "applied onto files", occupied(too_large), "REG006", APPLY, 5, then=untouched),
    Row(
        92,
        "converted onto files",
        occupied(too_large),
        "REG006",
        ("convert", "./adapter/adapter_model.safetensors", "-o", "out", "--base", "./base"),
        5,
        then=untouched,
    ),
    Row(
        92,
        "pulled onto files",
        occupied(yanked),
        "REG006",
        ("pull", "old@v1", "-o", "out"),
        5,
        then=untouched,
    ),
)

NEVER = (
    Never(
        91,
        "versions that were composed of each other",
        "a version's digest covers its lock, and the lock the digests of its parts: a circle would "
        "be a collision of sha256",
    ),
    Never(
        92, "--force", "no command has it: what lies in the place of an output is never replaced"
    ),
)
