"""Found weights as a recipe file."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rankloom import ref
from rankloom.errors import RefError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Combined:
    """What a recipe says besides weights.

    Attributes:
        refs: of the adapters: folders, or versions by their digest.
        base: the base's folder, or its name in the registry.
        method: how deltas are combined.
        parameters: of the method.
        rank: what the result is brought to.
    """

    refs: tuple[str | Path, ...]
    base: str | Path | None = None
    method: str = "exact"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    rank: object = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The same as arguments of :func:`rankloom.composition.compose`."""
        return {"method": self.method, "parameters": self.parameters, "rank": self.rank}


def pinned(item: str | os.PathLike[str], digest: str) -> str | Path:
    """Return a folder as a path, and a ref with the version that it names now."""
    where = ref.parse(item)
    return where if isinstance(where, Path) else str(ref.VersionRef(where.adapter, digest=digest))


def write_recipe(
    combined: Combined, weights: Sequence[Any] | None, remark: str, folder: Path
) -> str:
    """Return the text of a recipe that lies in ``folder``; folders in it are relative to that.

    Raises:
        RefError: there are no weights.
    """
    if weights is None:
        message = "there is no composition of all adapters to write a recipe of"
        raise RefError(message, hint="search with bounds or a grid that have weights other than 0")
    value: dict[str, Any] = {"version": 1}
    if combined.base is not None:
        value["base_model"] = _placed(combined.base, folder)
    value["adapters"] = [
        {"adapter": _placed(item, folder), "parameters": {"weight": weight}}
        for item, weight in zip(combined.refs, weights, strict=True)
    ]
    value["merge_method"] = combined.method
    if combined.parameters:
        value["parameters"] = dict(combined.parameters)
    if combined.rank is not None:
        value["output"] = {"rank": combined.rank}
    lines = textwrap.wrap(remark, 96, break_long_words=False, break_on_hyphens=False)
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=None, allow_unicode=True)
    return "".join(f"# {line}\n" for line in lines) + text


def _placed(item: str | Path, folder: Path) -> str:
    if isinstance(item, str):
        return item
    found = item.expanduser()
    # A link keeps its name; only ".." may mean something else behind one.
    target = found.resolve() if ".." in found.parts else found.absolute()
    place = os.path.relpath(target, folder.resolve())
    return place if place.startswith(".") else f"./{place}"
