"""Writes a composition as a PEFT folder, one target in memory at a time."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rankloom import digest
from rankloom.change.evaluate import load
from rankloom.errors import UnsupportedAdapterError
from rankloom.files import output_folder, sync, write_atomic
from rankloom.manifest import RECORD, FileEntry, Manifest
from rankloom.tensorfile.layout import lay_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rankloom.change.formula import TargetChange
    from rankloom.fingerprint import Fingerprint
    from rankloom.recipe.recipe import Lock

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def save(
    changes: Sequence[TargetChange],
    config: Mapping[str, Any],
    lock: Lock,
    base: Fingerprint | None,
    target: Path,
) -> Manifest:
    """Write a composition; the folder appears complete or not at all.

    The same inputs give the same bytes, on any machine: factors are joined, and multiplied in
    float32 element by element.

    Args:
        changes: what the composition adds to each parameter.
        config: content of ``adapter_config.json``; its scale is 1 for every module.
        lock: where the composition comes from.
        base: identity of the base that all its parts were made for.
        target: the folder to make.

    Returns:
        The manifest, which also lies in the folder as ``rankloom.json``.

    Raises:
        ConflictError: ``target`` exists and is not an empty folder.
        UnsupportedAdapterError: a changed parameter is not a module's ``weight``.
    """
    for change in changes:
        if change.parameter != "weight":
            message = f"{change.name} is no module's weight, so PEFT cannot hold its change"
            raise UnsupportedAdapterError(message, hint="apply it to a checkpoint instead")
    with output_folder(target) as folder:
        write_atomic(folder / CONFIG, _pretty(config))
        _write_factors(changes, folder / WEIGHTS)
        manifest = Manifest(
            files=tuple(_file_entry(folder / name) for name in (CONFIG, WEIGHTS)),
            base=base,
            lock=lock.to_json(),
        )
        write_atomic(folder / RECORD, manifest.canonical())
    return manifest


def _pretty(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _file_entry(path: Path) -> FileEntry:
    return FileEntry(path=path.name, size=path.stat().st_size, digest=digest.of_file(path))


def _keys(change: TargetChange) -> tuple[str, str]:
    prefix = f"base_model.model.{change.module}"
    return f"{prefix}.lora_A.weight", f"{prefix}.lora_B.weight"


def _write_factors(changes: Sequence[TargetChange], path: Path) -> None:
    shapes = []
    owner = {}
    for change in changes:
        (out, in_), rank = change.shape or (0, 0), change.formula.rank
        a, b = _keys(change)
        shapes += [(a, "F32", (rank, in_)), (b, "F32", (out, rank))]
        owner[a] = owner[b] = change
    prefix, header = lay_out(path, shapes, {"format": "pt"})
    with path.open("wb") as stream:
        stream.write(prefix)
        for change, entries in groupby(header.tensors.values(), key=lambda e: owner[e.name]):
            delta = load(change.formula).delta
            for entry in entries:
                factor = delta.a if entry.name == _keys(change)[0] else delta.b
                stream.write(factor.contiguous().numpy().data.cast("B"))
        sync(stream)
