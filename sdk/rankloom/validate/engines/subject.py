"""What engines see of an adapter: its config as it is written, its tensors, and the base."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rankloom.adapter.config import FILE as CONFIG
from rankloom.adapter.folder import TENSORS
from rankloom.base.pieces import parameter_shape
from rankloom.errors import RankloomError
from rankloom.tensorfile import strict_json
from rankloom.tensorfile.header import read_header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rankloom.adapter.change import Target
    from rankloom.adapter.reader import Adapter
    from rankloom.base.model import Base
    from rankloom.validate.fit import Placed

PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora_(?:(A|B)\.weight|embedding_(A|B))")
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Pair:
    """The factors of one module, as far as they are there; shapes as in the file."""

    a: tuple[int, ...] | None = None
    b: tuple[int, ...] | None = None
    embedding: bool = False


@dataclass(frozen=True)
class Fit:
    """An adapter beside a base.

    Attributes:
        base: the base.
        placed: the adapter's targets with their tensors in it.
        lost: its targets that have none.
        same: whether it is the base that the adapter was made for; ``None``: not known.
    """

    base: Base
    placed: Placed
    lost: Sequence[Target]
    same: bool | None = None

    @cached_property
    def unequal(self) -> list[tuple[Target, tuple[int, ...], tuple[int, ...]]]:
        """Targets of another shape than the base's tensor: with their shape, and the base's."""
        found = []
        for _, group in groupby(self.placed, key=lambda pair: id(pair[0])):
            pairs = list(group)
            target = pairs[0][0]
            wanted, there = target.change.shape, parameter_shape(tuple(piece for _, piece in pairs))
            if wanted is not None and wanted != there:
                found.append((target, wanted, there))
        return found


@dataclass(frozen=True)
class Subject:
    """What engines see.

    Attributes:
        config: the JSON object of the config, unchecked.
        shapes: shape of each tensor by its key in the file.
        adapter: the adapter, if rankloom can read it.
        fit: the adapter beside a base, if there is one.
    """

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    adapter: Adapter | None = None
    fit: Fit | None = None

    @cached_property
    def pairs(self) -> Mapping[str, Pair]:
        """Factors by module, without PEFT's prefix."""
        found: dict[str, dict[str, Any]] = {}
        for key, shape in self.shapes.items():
            if matched := _FACTOR.fullmatch(key):
                module = found.setdefault(matched[1].removeprefix(PREFIX), {})
                module[(matched[2] or matched[3]).lower()] = shape
                module["embedding"] = matched[3] is not None
        return {module: Pair(**parts) for module, parts in found.items()}


def of_adapter(adapter: Adapter, fit: Fit | None = None) -> Subject:
    """Return what engines see of an adapter that rankloom can read."""
    shapes = {key: entry.shape for key, entry in adapter.header.tensors.items()}
    return Subject(adapter.config.raw, shapes, adapter, fit)


def read(folder: Path, adapter: Adapter | None = None, fit: Fit | None = None) -> Subject | None:
    """Read what engines see; ``None`` where no engine could read it either.

    Args:
        folder: the adapter's.
        adapter: the adapter, if rankloom can read it.
        fit: see :class:`Fit`.
    """
    if adapter is not None:
        return of_adapter(adapter, fit)
    try:
        path = folder / CONFIG
        config = strict_json.loads(path.read_text("utf-8")) if _is_small(path) else None
        tensors = read_header(folder / TENSORS).tensors
    except (OSError, ValueError, RankloomError):
        return None
    if not isinstance(config, dict):
        return None
    return Subject(config, {key: entry.shape for key, entry in tensors.items()})


def _is_small(path: Path) -> bool:
    return path.stat().st_size <= _MAX_BYTES
