"""Turns LoRA files of other tools, and pickled PEFT folders, into PEFT folders for all engines.

What is written is read back by rankloom's own reader, and checked against the base if there is
one, before it gets its name.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankloom.adapter.config import FILE as CONFIG
from rankloom.adapter.config_reader import raise_for
from rankloom.adapter.folder import TENSORS, listing
from rankloom.adapter.foreign import keys, sgm
from rankloom.adapter.foreign.plan import plan
from rankloom.adapter.foreign.refusals import refusal
from rankloom.adapter.reader import read
from rankloom.base import modules as base_modules
from rankloom.base import reader as base_reader
from rankloom.errors import NotFoundError
from rankloom.files import check_output, output_folder, sync, write_atomic
from rankloom.tensorfile.header import read_header
from rankloom.tensorfile.layout import lay_out
from rankloom.validate.run import validate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.foreign.output import Output
    from rankloom.base.model import Base

PICKLED = (".bin", ".pt", ".pth", ".ckpt")
"""Endings of files that only an unpickler reads."""
_BINS = ("adapter_model.bin", "adapter_model.pt")
_PIPELINE = "model_index.json"
_ALLOW = "if you trust its source, --allow-pickle reads the tensors in it and calls nothing else"


def convert(
    source: Path,
    target: Path,
    *,
    base: Path | None = None,
    kind: str = "auto",
    alpha: float | None = None,
    allow_pickle: bool = False,
) -> dict[str, Any]:
    """Write a LoRA of kohya, LyCORIS, diffusers or loralib, or a pickled one of PEFT, for PEFT.

    A file for several models of a pipeline becomes a folder for each, below ``target``.

    Args:
        source: the file; or a PEFT folder whose tensors are pickled.
        target: the folder to make.
        base: folder of the model, by which names are resolved and shapes checked; or of a
            pipeline that has its models in folders.
        kind: one of :data:`rankloom.adapter.foreign.keys.FORMATS`, or ``auto``.
        alpha: of a loralib file, which does not hold it.
        allow_pickle: read pickled tensors; nothing but tensors is ever unpickled.

    Returns:
        ``format``, number of ``modules``, whether a base ``checked`` them, and ``folders``: path,
        ``peft_type``, ``modules``, and how many of these lost a bit (``rounded``).

    Raises:
        NotFoundError: there is no such file, or no such base.
        AdapterError: the file is broken.
        UnsupportedAdapterError: something cannot be converted exactly.
        IncompatibleError: it does not fit the base.
        ConflictError: ``target`` exists and is not an empty folder.
    """
    check_output(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    bases = _Bases(base)
    if source.is_dir():
        kind, made = "peft", [_from_folder(source, target, bases, allow_pickle=allow_pickle)]
    else:
        with _safetensors(source, target.parent, allow_pickle=allow_pickle) as file:
            header = read_header(file)
            kind = keys.detect(header.tensors) if kind == "auto" else kind
            outputs = plan(header, kind, alpha, bases.spellings, apart=bases.apart)
            made = _write(outputs, source, target, bases)
    return {
        "format": kind,
        "modules": sum(folder["modules"] for folder in made),
        "checked": base is not None,
        "folders": made,
    }


@dataclass(frozen=True, slots=True)
class _Bases:
    """The models that a file can be for: one, or those of a pipeline."""

    path: Path | None

    @property
    def apart(self) -> bool:
        """Whether each model has a folder of its own; so it is as long as nobody says otherwise."""
        return self.path is None or (self.path / _PIPELINE).is_file()

    def of(self, model: str) -> Base | None:
        """Return the base of one model, by its name in a pipeline."""
        if self.path is None:
            return None
        return base_reader.read(self.path / model if self.apart else self.path)

    def spellings(self, model: str) -> Mapping[str, str] | None:
        """Return how the modules of one model can be spelled."""
        base = self.of(model)
        if base is None:
            return None
        found, layers = base_modules.spellings(base), base.config.get("layers_per_block")
        if base.config.get("_class_name") == sgm.UNET and isinstance(layers, int):
            found = sgm.spellings(set(found.values()), layers) | found
        return found


@contextmanager
def _safetensors(source: Path, near: Path, *, allow_pickle: bool) -> Iterator[Path]:
    """Give the file itself, or for a pickled one its tensors in a file that vanishes."""
    if source.suffix.lower() not in PICKLED:
        yield source
        return
    if not source.exists():
        message = f"{source} does not exist"
        raise NotFoundError(message, hint="check the path")
    with tempfile.TemporaryDirectory(prefix=".unpickled-", dir=near) as folder:
        file = Path(folder) / "tensors.safetensors"
        _unpickle(source, file, allowed=allow_pickle)
        yield file


def _unpickle(source: Path, target: Path, *, allowed: bool) -> None:
    if not allowed:
        raise refusal(source.name, "is a pickle, which can run code when read", _ALLOW, "SEC001")
    from rankloom.pickled import to_safetensors

    to_safetensors(source, target)


def _from_folder(
    source: Path, target: Path, bases: _Bases, *, allow_pickle: bool
) -> dict[str, Any]:
    """Write a PEFT folder again, with its tensors as safetensors."""
    pickled = [source / name for name in _BINS if (source / name).is_file()]
    if not pickled or not (source / CONFIG).is_file():
        message = f"{source} holds no {CONFIG} with {' or '.join(_BINS)} beside it"
        raise NotFoundError(message, hint="a PEFT folder with safetensors is used as it is")
    if (source / TENSORS).exists():
        hint = f"remove {pickled[0].name}: the other is what PEFT loads"
        raise refusal(str(source), f"holds {TENSORS} and {pickled[0].name}", hint)
    content = listing(source)
    raise_for([found for found in content.findings if found.where not in _BINS], source)
    with output_folder(target) as folder:
        _unpickle(pickled[0], folder / TENSORS, allowed=allow_pickle)
        for file in content.files:
            shutil.copyfile(file, folder / file.name)
        return _checked(folder, source, target, bases.of(""))


def _write(
    outputs: Mapping[str, Output], source: Path, target: Path, bases: _Bases
) -> list[dict[str, Any]]:
    made = []
    with output_folder(target) as filling:
        for model, output in outputs.items():
            below = model if len(outputs) > 1 else ""
            folder = filling / below
            folder.mkdir(exist_ok=True)
            config = json.dumps(output.config, indent=2, sort_keys=True) + "\n"
            write_atomic(folder / CONFIG, config.encode())
            _write_tensors(output, folder / TENSORS)
            said = _checked(folder, source, target / below, bases.of(model))
            made.append({**said, "rounded": len(output.rounded)})
    return made


def _write_tensors(output: Output, path: Path) -> None:
    shapes = [(key, tensor.dtype, tensor.shape) for key, tensor in output.tensors.items()]
    prefix, header = lay_out(path, shapes, {"format": "pt"})
    with path.open("wb") as stream:
        stream.write(prefix)
        for key in header.tensors:
            for chunk in output.tensors[key].chunks():
                stream.write(chunk)
        sync(stream)


def _checked(folder: Path, source: Path, target: Path, base: Base | None) -> dict[str, Any]:
    """Read what was written as everyone will, and say what it is."""
    report = validate(folder, base, headers_only=True)
    replace(report, subject=str(source)).raise_for_errors()
    adapter = read(folder)
    modules = len({found.module for found in adapter.targets})
    kind = adapter.config.peft_type
    return {"path": str(target), "peft_type": kind, "modules": modules, "rounded": 0}
