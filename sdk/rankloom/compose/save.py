"""Writes a composition as a PEFT folder, one target in memory at a time."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rankloom import digest
from rankloom.change.read import as_bytes
from rankloom.change.threads import one_thread
from rankloom.compose.replay import replay
from rankloom.files import output_folder, sync, write_atomic
from rankloom.manifest import RECORD, FileEntry, Manifest
from rankloom.recipe.locked import check_record
from rankloom.tensorfile.layout import lay_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rankloom.change.formula import TargetChange
    from rankloom.compose.forms import Form
    from rankloom.fingerprint import Fingerprint
    from rankloom.recipe.recipe import Lock

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def save(
    changes: Sequence[TargetChange],
    forms: Sequence[Form],
    config: Mapping[str, Any],
    lock: Lock,
    base: Fingerprint | None,
    target: Path,
    *,
    wanted: Manifest | None = None,
) -> Manifest:
    """Write a composition; the folder appears complete or not at all.

    The same inputs give the same bytes, on any machine: factors are joined, and multiplied in
    float32 element by element. What was written is read again and compared, tile by tile, with
    what the changes give in float64.

    Args:
        changes: what the composition adds to each parameter.
        forms: how that is kept.
        config: content of ``adapter_config.json``; its scale is 1 for every module.
        lock: where the composition comes from.
        base: identity of the base that all its parts were made for.
        target: the folder to make.
        wanted: the record that it must have.

    Returns:
        The manifest, which also lies in the folder as ``rankloom.json``.

    Raises:
        ConflictError: ``target`` exists and is not an empty folder.
        IntegrityError: it would have another record than ``wanted``, or what was written is not
            what the changes give.
    """
    with one_thread(), output_folder(target) as folder:
        write_atomic(folder / CONFIG, _pretty(config))
        _write_tensors(forms, folder / WEIGHTS)
        replay(changes, folder, digest.of_json(lock.to_json()))
        manifest = Manifest(
            files=tuple(_file_entry(folder / name) for name in (CONFIG, WEIGHTS)),
            base=base,
            lock=lock.to_json(),
        )
        if wanted is not None:
            check_record(manifest, wanted)
        write_atomic(folder / RECORD, manifest.record())
    return manifest


def _pretty(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _file_entry(path: Path) -> FileEntry:
    return FileEntry(path=path.name, size=path.stat().st_size, digest=digest.of_file(path))


def _write_tensors(forms: Sequence[Form], path: Path) -> None:
    owner = {key: form for form in forms for key in form.shapes}
    shapes = [(key, *form.shapes[key]) for key, form in owner.items()]
    prefix, header = lay_out(path, shapes, {"format": "pt"})
    with path.open("wb") as stream:
        stream.write(prefix)
        for form, keys in groupby(header.tensors, key=owner.__getitem__):
            values = form.load()
            for key in keys:
                stream.write(as_bytes(values[key]))
        sync(stream)
