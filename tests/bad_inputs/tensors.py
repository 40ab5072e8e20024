"""Rows of the tensors, of the base, and of the values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bad_inputs.container import file
from bad_inputs.record import recorded
from bad_inputs.row import FITTED, Row
from folders import PREFIX, SHAPES, adapter, base, base_tensors, factors, tensor
from rankloom import bases
from rankloom.config import Settings
from rankloom.tensorfile.values import bf16_bits
from rule_cases import Q, as_dtype, layers, poisoned, tensors_of_base, with_factor, with_keys, zeros

if TYPE_CHECKING:
    from pathlib import Path

    from bad_inputs.row import Make

ARRAYS = base_tensors()
HEAD = {**SHAPES, "lm_head": (10, 8)}
HEADED = {"target_modules": ["q_proj", "v_proj", "lm_head"]}
EXPERTS = [f"model.layers.0.mlp.experts.{number}.w1" for number in range(2)]


def on(
    content: Any = None,  # noqa: ANN401 - tensors
    arrays: dict[str, Any] | None = None,
    *,
    fields: dict[str, Any] | None = None,
    **base_fields: object,
) -> Make:
    """Return what writes an adapter and a base."""

    def make(place: Path) -> None:
        adapter(place / "adapter", content, **(fields or {}))
        kept = {name: tensor(values) for name, values in (arrays or ARRAYS).items()}
        base(place / "base", kept, **base_fields)

    return make


def made_for(
    arrays: dict[str, Any], found: dict[str, Any], *, shards: int = 1, **fields: object
) -> Make:
    """Return what writes an adapter that was made for one base, and another base."""

    def make(place: Path) -> None:
        first = base(place / "first", {name: tensor(value) for name, value in arrays.items()})
        recorded(adapter(place / "adapter", **fields), first)
        bases.read(Settings(place / "home", None, None), first)  # its tensors are known here
        base(place / "base", {n: tensor(v) for n, v in found.items()}, shards=shards)

    return make


def without(leaf: str) -> dict[str, Any]:
    """Return the usual factors but one."""
    return {k: v for k, v in factors().items() if k != f"{PREFIX}{Q}.lora_{leaf}.weight"}


def experts(*ranks: int) -> Make:
    """Return what writes experts whose factors have these ranks, of which the config says 2."""
    content: dict[str, Any] = {}
    for name, rank in zip(EXPERTS, ranks, strict=True):
        content |= factors({name: (6, 8)}, rank)
    return file(content, target_modules=["w1"])


def saved(rows: int) -> dict[str, Any]:
    """Return the usual factors and an embedding with so many rows."""
    name = f"{PREFIX}model.embed_tokens.weight"
    return {**factors(), name: tensor(np.ones((rows, 8), np.float32))}


def scaled(size: float) -> dict[str, Any]:
    """Return factors for eight layers, of which one B is larger."""
    content = layers(8)
    name = f"{PREFIX}{Q}.lora_B.weight"
    dtype, shape, data = content[name]
    values = np.frombuffer(data, np.float32) * np.float32(size)
    return {**content, name: (dtype, shape, values.tobytes())}


BITS = {name: bf16_bits(values) for name, values in ARRAYS.items()}
WIDE = {name: (codes.astype(np.uint32) << 16).view(np.float32) for name, codes in BITS.items()}
LONGER = {**ARRAYS, "model.embed_tokens.weight": np.ones((12, 8), np.float32)}
NARROW = {**ARRAYS, f"{Q}.weight": np.zeros((6, 16), np.float32)}

ROWS = (
    Row(47, "prefix stripped", file(with_keys(lambda k: k.removeprefix(PREFIX))), "TEN001"),
    Row(47, "prefix wrong", file(with_keys(lambda k: k.replace("base_", "bass_"))), "TEN001"),
    Row(47, "prefix twice", file(with_keys(lambda k: "base_model.model." + k)), "TEN001"),
    Row(48, "A without B", file(without("B")), "TEN002"),
    Row(48, "B without A", file(without("A")), "TEN002"),
    Row(49, "A transposed", file(with_factor("lora_A", np.ones((8, 2), np.float32))), "TEN003"),
    Row(50, "other rank in the config", file(None, r=3), "TEN004"),
    Row(51, "experts of two ranks", experts(2, 4), "TEN004"),
    Row(52, "layer beyond the base", on(layers(3), tensors_of_base(2)), "TEN005", FITTED),
    Row(
        53,
        "layer missing",
        file(layers(4, without="model.layers.2.self_attn.v_proj")),
        "TEN006",
        code=0,
        severity="warning",
    ),
    Row(
        53,
        "layer missing for lorax",
        file(layers(4, without="model.layers.2.self_attn.v_proj")),
        "ENG035",
        command=("validate", "./adapter", "--engine", "lorax", "--json"),
    ),
    Row(54, "factors of int8", file(as_dtype(np.int8)), "TEN007"),
    Row(
        54,
        "factors of complex numbers",
        file({k: ("C64", s, d * 2) for k, (_, s, d) in factors().items()}),
        "TEN007",
    ),
    Row(54, "factors of float64", file(as_dtype(np.float64)), "TEN007", push=""),
    Row(
        55,
        "factors of two dtypes",
        file(with_factor("lora_A", np.ones((2, 8), np.float16))),
        "TEN008",
    ),
    Row(
        56,
        "base of another width",
        on(arrays={**ARRAYS, f"{Q}.weight": np.zeros((6, 9), np.float32)}),
        "BASE002",
        FITTED,
    ),
    Row(57, "factors narrower than the base", on(arrays=NARROW), "BASE002", FITTED),
    Row(
        58,
        "base of the same shape with other weights",
        made_for(base_tensors(seed=2), ARRAYS),
        "BASE003",
        FITTED,
    ),
    Row(
        59,
        "the same base in other shards",
        made_for(ARRAYS, ARRAYS, shards=3),
        "",
        FITTED,
        0,
        says='"exact"',
    ),
    Row(
        60, "float32 copy of the bfloat16 base", made_for(BITS, WIDE), "", FITTED, 0, says='"bf16"'
    ),
    Row(
        61,
        "base with a resized vocabulary",
        made_for(ARRAYS, LONGER),
        "",
        FITTED,
        0,
        says="compatible-subset",
        push="BASE003",  # it would tie the version to another base than the recorded one
    ),
    Row(
        62,
        "head of a tied base",
        on(factors(HEAD), fields=HEADED, tie_word_embeddings=True),
        "BASE004",
        FITTED,
        push="",
    ),
    Row(
        63,
        "saved vocabulary of another size",
        on(saved(12), fields={"modules_to_save": ["embed_tokens"]}),
        "BASE005",
        FITTED,
        push="",
    ),
    Row(
        64,
        "quantised base",
        on(arrays={**ARRAYS, f"{Q}.weight": np.zeros((6, 4), np.int8)}),
        "BASE006",
        FITTED,
    ),
    *(Row(65, f"value {value}", file(poisoned(value)), "NUM001") for value in (np.nan, np.inf)),
    Row(
        66,
        "delta a million times the others",
        file(scaled(1e6)),
        "NUM002",
        code=0,
        severity="info",
    ),
    Row(67, "all B zero", file(zeros("lora_B")), "NUM003"),
)
