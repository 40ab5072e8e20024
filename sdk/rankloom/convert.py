"""Turns a LoRA file of another tool into a PEFT folder; the factors' bytes stay as they are."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from rankloom.adapter.config import FILE as CONFIG
from rankloom.adapter.folder import TENSORS
from rankloom.adapter.foreign import names, pairs
from rankloom.adapter.keys import PREFIX
from rankloom.base import reader
from rankloom.files import output_folder, sync, write_atomic
from rankloom.tensorfile.header import read_header
from rankloom.tensorfile.layout import lay_out

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rankloom.adapter.foreign.pairs import Factors


def convert(
    source: Path,
    target: Path,
    *,
    base: Path | None = None,
    kind: str = "auto",
    alpha: float | None = None,
) -> dict[str, Any]:
    """Write a safetensors LoRA of kohya, diffusers or loralib as a PEFT folder.

    Args:
        source: the file.
        target: the folder to make.
        base: folder of the model, by which underscored names are told apart.
        kind: one of :data:`rankloom.adapter.foreign.pairs.FORMATS`, or ``auto``.
        alpha: of a loralib file, which does not hold it.

    Returns:
        The format and the number of modules.

    Raises:
        NotFoundError: there is no such file.
        AdapterError: the file is broken.
        UnsupportedAdapterError: a tensor cannot be converted exactly.
        ConflictError: ``target`` exists and is not an empty folder.
    """
    tensors = read_header(source).tensors
    kind = pairs.detect(tensors) if kind == "auto" else kind
    found = pairs.read(tensors, kind)
    if not found:
        raise pairs.broken(source.name, "holds no factors", "TEN002")
    if kind == "loralib" and alpha is None:
        raise pairs.refusal(found[0].module, "has its alpha in code", "give it with --alpha")
    if kind != "loralib" and alpha is not None:
        raise pairs.refusal(source.name, f"is {kind}, which says its alpha", "leave out --alpha")
    if len(starts := sorted({names.part(factors.module) for factors in found})) > 1:
        hint = "split the file: a PEFT folder is for one model"
        raise pairs.refusal(source.name, f"is for several models: {', '.join(starts)}", hint)
    named = _named(found, base)
    alphas = {module: _alpha(factors, alpha) for module, factors in named.items()}
    with output_folder(target) as folder:
        config = json.dumps(_config(named, alphas), indent=2, sort_keys=True) + "\n"
        write_atomic(folder / CONFIG, config.encode())
        _write(named, folder / TENSORS)
    return {"format": kind, "modules": len(named)}


def _named(found: list[Factors], base: Path | None) -> dict[str, Factors]:
    modules = None
    if base is not None:
        known = reader.read(base).layouts[0].known
        modules = {name.removesuffix(".weight") for name in known if name.endswith(".weight")}
    named: dict[str, Factors] = {}
    for factors in found:
        module = names.resolve(factors.module, modules)
        if named.setdefault(module, factors) is not factors:
            raise pairs.refusal(factors.module, f"changes {module} a second time", "split the file")
    return named


def _alpha(factors: Factors, given: float | None) -> float:
    value = float(factors.rank) if given is None else given  # kohya's rule for a missing alpha
    if factors.alpha is not None:
        from rankloom.tensorfile.values import load_numpy

        if math.prod(factors.alpha.shape) != 1:
            raise pairs.broken(factors.module, "has an alpha that is no number", "TEN004")
        value = float(load_numpy(factors.alpha).reshape(-1)[0])
    if not math.isfinite(value):
        raise pairs.broken(factors.module, f"has alpha {value}", "NUM001")
    return value


def _config(named: Mapping[str, Factors], alphas: Mapping[str, float]) -> dict[str, Any]:
    """Return a config whose alpha / rank is each module's scale, without a rounding."""
    ranks = {module: factors.rank for module, factors in named.items()}
    rank, first = max(ranks.values()), next(iter(alphas.values()))
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": _number(first),
        "rank_pattern": {_key(m): r for m, r in ranks.items() if r != rank},
        "alpha_pattern": {_key(m): _number(a) for m, a in alphas.items() if a != first},
        "target_modules": sorted(named),
        "bias": "none",
        "inference_mode": True,
    }


def _key(module: str) -> str:
    return f"^{re.escape(module)}"


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


def _write(named: Mapping[str, Factors], path: Path) -> None:
    from rankloom.tensorfile.values import raw_chunks

    entries = {
        f"{PREFIX}{module}.lora_{leaf}.weight": entry
        for module, factors in named.items()
        for leaf, entry in (("A", factors.a), ("B", factors.b))
    }
    shapes = [(key, entry.dtype, entry.shape) for key, entry in entries.items()]
    prefix, header = lay_out(path, shapes, {"format": "pt"})
    with path.open("wb") as stream:
        stream.write(prefix)
        for key in header.tensors:
            for chunk in raw_chunks(entries[key]):
                stream.write(chunk)
        sync(stream)
