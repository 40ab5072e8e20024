"""Good adapters of several kinds, small enough to be read a hundred times a second."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from folders import PREFIX, SHAPES, adapter, base, base_tensors, factors, tensor
from rankloom.tensorfile.values import bf16_bits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from folders import Tensor

RANK = 2


def _leaves(leaf: Callable[[int, int], dict[str, tuple[int, ...]]]) -> dict[str, Tensor]:
    """Return random tensors for every module: names and shapes by (out, in)."""
    random = np.random.default_rng(0)
    return {
        f"{PREFIX}{module}.{name}": tensor(random.standard_normal(shape, np.float32))
        for module, (rows, columns) in SHAPES.items()
        for name, shape in leaf(rows, columns).items()
    }


def _bf16(content: dict[str, Tensor]) -> dict[str, Tensor]:
    wide = {name: np.frombuffer(data, np.float32) for name, (_, _, data) in content.items()}
    bits = {name: bf16_bits(values).tobytes() for name, values in wide.items()}
    return {name: ("BF16", shape, bits[name]) for name, (_, shape, _) in content.items()}


def _saved(name: str, *shape: int) -> dict[str, Tensor]:
    return {f"{PREFIX}{name}.weight": tensor(np.ones(shape, np.float32))}


_DORA = _leaves(lambda rows, _: {"lora_magnitude_vector": (rows,)})
_LOHA = _leaves(
    lambda rows, columns: {
        "hada_w1_a": (rows, RANK),
        "hada_w1_b": (RANK, columns),
        "hada_w2_a": (rows, RANK),
        "hada_w2_b": (RANK, columns),
    }
)
_LOKR = _leaves(lambda rows, columns: {"lokr_w1": (2, 2), "lokr_w2": (rows // 2, columns // 2)})
_EXPERTS = {f"model.layers.0.mlp.experts.{number}.w1": (6, 8) for number in range(2)}

SEEDS: dict[str, tuple[dict[str, Tensor], dict[str, Any]]] = {
    "lora": (factors(), {}),
    "bfloat16": (_bf16(factors()), {"lora_alpha": 3.5}),
    "rslora": (
        {
            **factors({name: shape for name, shape in SHAPES.items() if "q_proj" in name}, 4),
            **factors({name: shape for name, shape in SHAPES.items() if "v_proj" in name}),
        },
        {"use_rslora": True, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"v_proj": 8}},
    ),
    "expression": (factors(), {"target_modules": r".*\.[qv]_proj"}),
    "dora": ({**factors(), **_DORA}, {"use_dora": True}),
    "saved": (
        {**factors(), **_saved("model.embed_tokens", 10, 8)},
        {"modules_to_save": ["embed_tokens"]},
    ),
    "experts": (factors(_EXPERTS), {"target_modules": ["w1"]}),
    "ia3": (
        _leaves(lambda rows, _: {"ia3_l": (rows, 1)}),
        {"peft_type": "IA3", "feedforward_modules": []},
    ),
    "loha": (_LOHA, {"peft_type": "LOHA", "alpha": 4}),
    "lokr": (_LOKR, {"peft_type": "LOKR", "alpha": 4}),
}
"""Tensors, and fields of the config besides the usual ones."""

_ABSENT = {"IA3": ("r", "lora_alpha"), "LOHA": ("lora_alpha",), "LOKR": ("lora_alpha",)}
"""Usual fields that a type does not have."""


def write(folder: Path, kind: str) -> Path:
    """Write a good adapter of a kind."""
    content, fields = SEEDS[kind]
    adapter(folder, content, **fields)
    file = folder / "adapter_config.json"
    absent = _ABSENT.get(fields.get("peft_type", "LORA"), ())
    kept = {
        name: value for name, value in json.loads(file.read_text()).items() if name not in absent
    }
    file.write_text(json.dumps(kept))
    return folder


def write_base(folder: Path) -> Path:
    """Write a base that has every module."""
    arrays = base_tensors({**SHAPES, **_EXPERTS})
    return base(folder, {name: tensor(values) for name, values in arrays.items()})
