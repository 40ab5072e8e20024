"""Writes small adapter and base folders, byte by byte, so that they can be wrong on purpose."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    Tensor = tuple[str, tuple[int, ...], bytes]

PREFIX = "base_model.model."
LAYERS = ("model.layers.0.self_attn", "model.layers.1.self_attn")
SHAPES = {f"{layer}.{leaf}": (6, 8) for layer in LAYERS for leaf in ("q_proj", "v_proj")}
"""(out, in) of the modules of the usual adapter."""

_CODES = {"f4": "F32", "f2": "F16", "f8": "F64", "i1": "I8", "u1": "U8", "u2": "BF16", "i8": "I64"}


def tensor(values: np.ndarray[Any, Any], dtype: str | None = None) -> Tensor:
    """Return an array as (dtype, shape, bytes); uint16 holds bfloat16 bits."""
    code = dtype or _CODES[values.dtype.str[1:]]
    return code, values.shape, np.ascontiguousarray(values).tobytes()


def header_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the JSON value of the header of a file that holds the tensors in this order."""
    header, position = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        offsets = [position, position + len(data)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += len(data)
    return header


def file_bytes(
    header: Mapping[str, Any] | bytes, data: bytes = b"", *, align: bool = True
) -> bytes:
    """Return a safetensors file with this header and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    if align:
        text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def tensor_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a sound safetensors file."""
    header = {**({"__metadata__": metadata} if metadata else {}), **header_of(tensors)}
    return file_bytes(header, b"".join(data for _, _, data in tensors.values()))


def factors(
    shapes: Mapping[str, tuple[int, int]] = SHAPES, r: int = 2, *, seed: int = 0
) -> dict[str, Tensor]:
    """Return random float32 factors of rank ``r`` under PEFT's keys."""
    random = np.random.default_rng(seed)
    tensors = {}
    for module, (rows, columns) in shapes.items():
        for leaf, shape in (("A", (r, columns)), ("B", (rows, r))):
            values = random.standard_normal(shape, np.float32)
            tensors[f"{PREFIX}{module}.lora_{leaf}.weight"] = tensor(values)
    return tensors


def config(**fields: object) -> dict[str, Any]:
    """Return a config as PEFT writes it, for the usual adapter, with some fields replaced."""
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": "acme/tiny",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj", "v_proj"],
        "inference_mode": True,
        "task_type": "CAUSAL_LM",
        **fields,
    }


def adapter(
    folder: Path, tensors: Mapping[str, Tensor] | bytes | None = None, **fields: object
) -> Path:
    """Write an adapter's folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    content = factors() if tensors is None else tensors
    data = content if isinstance(content, bytes) else tensor_file(content)
    (folder / "adapter_model.safetensors").write_bytes(data)
    (folder / "adapter_config.json").write_text(json.dumps(config(**fields)))
    return folder


def base_tensors(
    shapes: Mapping[str, tuple[int, int]] = SHAPES, *, seed: int = 1
) -> dict[str, np.ndarray[Any, Any]]:
    """Return random float32 weights for the modules, and an embedding."""
    random = np.random.default_rng(seed)
    named = {f"{module}.weight": shape for module, shape in shapes.items()}
    named["model.embed_tokens.weight"] = (10, 8)
    return {name: random.standard_normal(shape, np.float32) for name, shape in named.items()}


def base(
    folder: Path,
    tensors: Mapping[str, Tensor] | None = None,
    *,
    shards: int = 1,
    names: Iterable[str] = (),
    **fields: object,
) -> Path:
    """Write a base's folder, in one file or in shards with their index, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    content = tensors or {name: tensor(values) for name, values in base_tensors().items()}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **fields}))
    if shards == 1:
        (folder / "model.safetensors").write_bytes(tensor_file(content))
        return folder
    files = list(names) or [f"model-{n:05}-of-{shards:05}.safetensors" for n in range(shards)]
    places = {name: files[number % shards] for number, name in enumerate(content)}
    for file in files:
        part = {name: value for name, value in content.items() if places[name] == file}
        (folder / file).write_bytes(tensor_file(part))
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
