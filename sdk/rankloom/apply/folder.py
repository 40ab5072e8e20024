"""The files of a checkpoint beside its tensors: which go along, and what changes in them."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

from rankloom.apply.config_edits import edited
from rankloom.errors import BackendUnavailableError
from rankloom.files import on_disk, write_atomic
from rankloom.manifest import RECORD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rankloom.apply.steps import ShardPlan
    from rankloom.base.model import Base

# Weights in any form: those that were not changed must not lie beside those that were.
_WEIGHTS = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".pkl",
    ".bin.index.json",
)  # fmt: skip
_INDEX = ".safetensors.index.json"
_DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def companions(base: Base) -> tuple[Path, ...]:
    """Return the files that are copied as they are: config, tokenizer, index, code, licence."""
    paths = sorted(base.path.iterdir())
    return tuple(path for path in paths if path.is_file() and is_companion(path.name))


def is_companion(name: str) -> bool:
    """Tell whether a file of this name is one of :func:`companions`."""
    return name != RECORD and not name.startswith(".") and not name.endswith(_WEIGHTS)


def copy_companions(base: Base, folder: Path) -> None:
    """Copy :func:`companions`.

    Raises:
        DiskError: there is no room for them.
    """
    for path in companions(base):
        target = folder / path.name
        with path.open("rb") as source, on_disk(target), target.open("wb") as stream:
            shutil.copyfileobj(source, stream)


def rewrite_dtype(folder: Path, code: str) -> None:
    """Let the config say what a conversion made of the tensors.

    Args:
        folder: the new checkpoint.
        code: dtype code of its floating tensors.
    """
    config = folder / "config.json"
    if config.is_file():
        values = _read(config)
        for key in {"torch_dtype", "dtype"} & values.keys() or {"dtype"}:
            values[key] = _DTYPE_NAMES[code]
        _write(config, values)


def rewrite_config(folder: Path, edits: Mapping[str, Any]) -> None:
    """Let the config say what became of the model, if the checkpoint has one."""
    config = folder / "config.json"
    if edits and config.is_file():
        _write(config, edited(_read(config), edits))


def rewrite_index(folder: Path, plans: Sequence[ShardPlan]) -> None:
    """Let the index say where tensors lie and how large they are in all.

    Args:
        folder: the new checkpoint.
        plans: all its files. One that holds everything needs no index.
    """
    names = {name: plan.name for plan in plans for name in plan.new.tensors}
    nbytes = sum(entry.nbytes for plan in plans for entry in plan.new.tensors.values())
    found = sorted(folder.glob(f"*{_INDEX}"))
    values = _read(found[0]) if found else {}
    for index in found:
        index.unlink()
    if len(plans) > 1 or (found and plans[0].name in values["weight_map"].values()):
        values["weight_map"] = dict(sorted(names.items()))
        values.setdefault("metadata", {})["total_size"] = nbytes
        stem = re.sub(r"(-\d+-of-\d+)?\.safetensors$", "", plans[0].name)
        _write(found[0] if found else folder / f"{stem}{_INDEX}", values)


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_bytes())
    return values


def _write(path: Path, values: dict[str, Any]) -> None:
    write_atomic(path, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


def check_space(target: Path, nbytes: int) -> None:
    """Refuse to begin what the file system has no room for.

    Raises:
        BackendUnavailableError: with both figures.
    """
    existing = next(parent for parent in target.absolute().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < nbytes:
        message = f"{target} needs {nbytes / 1e9:.2f} GB, but {existing} has {free / 1e9:.2f} free"
        raise BackendUnavailableError(message, hint="free some space or name another output")
