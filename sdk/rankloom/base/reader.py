"""Reads a base model's folder: one safetensors file, or several with their index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.base.model import Base
from rankloom.errors import BaseError, NotFoundError
from rankloom.finding import Finding
from rankloom.tensorfile import strict_json
from rankloom.tensorfile.header import TensorEntry, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
MAX_JSON_BYTES = 64 << 20
"""An index of a thousand shards has about ten million bytes."""


def read(path: Path) -> Base:
    """Read config and headers of a base.

    Args:
        path: a folder as transformers' ``save_pretrained`` writes it, or one safetensors file.

    Raises:
        NotFoundError: there is no such path.
        BaseError: it holds no base that can be read, or index and shards disagree.
    """
    if path.is_file():
        return _base(path.parent, (path,))
    if not path.is_dir():
        message = f"there is no base folder {path}"
        raise NotFoundError(message, hint="give the folder that holds config.json and the weights")
    indexes = sorted(path.glob("*" + INDEX_SUFFIX))
    if len(indexes) > 1:
        raise _error(path, f"it has {len(indexes)} indexes", "keep the one of this model")
    return _sharded(path, indexes[0]) if indexes else _base(path, (_single(path),))


def _single(path: Path) -> Path:
    files = sorted(path.glob("*.safetensors"))
    if path / SINGLE in files or len(files) == 1:
        return path / SINGLE if path / SINGLE in files else files[0]
    if files:
        what = f"it has {len(files)} safetensors files and no index"
        raise _error(path, what, "save the base again with save_pretrained")
    pickled = any(path.glob("*.bin")) or any(path.glob("*.pt"))
    what = "its weights are pickled, which runs code" if pickled else "it has no *.safetensors file"
    raise _error(path, what, "save the base with save_pretrained(..., safe_serialization=True)")


def _sharded(path: Path, index: Path) -> Base:
    places = _weight_map(index)
    files = tuple(path / name for name in sorted(set(places.values())))
    if missing := [file.name for file in files if not file.is_file()]:
        raise _error(path, f"{index.name} names {missing[0]}, which is not there", _COMPLETE)
    if (single := path / SINGLE).exists() and single not in files:
        raise _error(path, f"it has {SINGLE} beside {index.name}", "remove the one that is stale")
    base = _base(path, files)
    _check_index(index, places, base)
    return base


_COMPLETE = "copy or download the base again, completely"


def _weight_map(index: Path) -> dict[str, str]:
    places = _json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise _error(index.parent, f"{index.name} has no weight_map", _COMPLETE)
    for file in places.values():
        plain = isinstance(file, str) and file.endswith(".safetensors")
        if not plain or "/" in file or "\\" in file:
            what = f"{index.name} names {str(file)[:80]!r}, no safetensors file of the folder"
            raise _error(index.parent, what, _COMPLETE)
    return places


def shards(index: Path) -> list[str]:
    """Return the names of the files of an index, plain names all.

    Raises:
        BaseError: it is no index.
    """
    return sorted(set(_weight_map(index).values()))


def _check_index(index: Path, places: Mapping[str, str], base: Base) -> None:
    if absent := sorted(places.keys() - base.tensors.keys()):
        what = f"{index.name} lists {absent[0]}, which no shard holds ({len(absent)} such)"
        raise _error(base.path, what, _COMPLETE)
    if extra := sorted(base.tensors.keys() - places.keys()):
        what = f"shards hold {extra[0]}, which {index.name} does not list ({len(extra)} such)"
        raise _error(base.path, what, _COMPLETE)
    for name, file in places.items():
        if (found := base.tensors[name].path.name) != file:
            what = f"{name} lies in {found}, {index.name} says {file}"
            raise _error(base.path, what, _COMPLETE)


def _base(path: Path, files: tuple[Path, ...]) -> Base:
    tensors: dict[str, TensorEntry] = {}
    for file in files:
        for name, entry in read_header(file, error=BaseError).tensors.items():
            if (other := tensors.setdefault(name, entry)) is not entry:
                what = f"{name} is in {other.path.name} and in {file.name}"
                raise _error(path, what, "save the base again with save_pretrained")
    config = path / CONFIG
    return Base(path, _json(config) if config.is_file() else {}, tensors, files)


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise _error(path.parent, f"{path.name} is larger than {MAX_JSON_BYTES} bytes", "")
        value = strict_json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise _error(path.parent, f"{path.name} is no JSON: {error}", _COMPLETE) from None
    if not isinstance(value, dict):
        raise _error(path.parent, f"{path.name} is not a JSON object", _COMPLETE)
    return value


def _error(path: Path, what: str, hint: str) -> BaseError:
    message = f"{path}: {what}"
    return BaseError(message, hint=hint, findings=[Finding("BASE007", message, fix=hint)])
