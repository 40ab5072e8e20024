"""Where in an adapter's folder a finding lies, as tools that show files want to know it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom.adapter.config import FILE as CONFIG
from rankloom.adapter.config_reader import MAX_BYTES
from rankloom.adapter.folder import TENSORS

if TYPE_CHECKING:
    from rankloom.finding import Finding


@dataclass(frozen=True, slots=True)
class Location:
    """A place.

    Attributes:
        path: the file on disk.
        uri: its name for people and tools, with slashes; relative where that is possible.
        line: line in the file, from 1; ``None`` where the file has no lines.
        name: tensor or config field; empty if the whole file is meant.
    """

    path: Path
    uri: str
    line: int | None = None
    name: str = ""


class Locator:
    """Finds the places of findings in one adapter's folder.

    Args:
        folder: the folder.
        name: what the adapter is called; the beginning of ``uri`` for folders elsewhere.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._root = _root(folder, name)
        self._fields = _lines(folder / CONFIG)

    def locate(self, finding: Finding) -> Location:
        """Return the place of a finding: config field, file, tensor, or else the config."""
        where = finding.where
        if where in self._fields:
            return self._at(CONFIG, self._fields[where], where)
        if where and "/" not in where and (self._folder / where).exists():
            return self._at(where, 1 if where == CONFIG else None)
        if where and not finding.rule.startswith("CFG"):
            return self._at(TENSORS, None, where)
        return self._at(CONFIG, 1, where)

    def _at(self, file: str, line: int | None, name: str = "") -> Location:
        return Location(self._folder / file, f"{self._root}/{file}", line, name)


def _root(folder: Path, name: str) -> str:
    try:
        return folder.absolute().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return name.strip("/")


def _lines(config: Path) -> dict[str, int]:
    """Return the line of each field; of a name that occurs twice, that of the outermost one."""
    found: dict[str, tuple[int, int]] = {}
    try:
        text = config.read_text("utf-8") if config.stat().st_size <= MAX_BYTES else ""
    except (OSError, ValueError):
        return {}
    for number, line in enumerate(text.splitlines(), 1):
        for matched in re.finditer(r'"([A-Za-z_]\w*)"\s*:', line):
            place = (matched.start(), number)
            if matched[1] not in found or place[0] < found[matched[1]][0]:
                found[matched[1]] = place
    return {name: number for name, (_, number) in found.items()}
