"""One table of a TOML file, whose keys know their line."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from rankloom.errors import RefError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?")
_KEY = re.compile(r"""\s*["']?([\w-]+)["']?\s*[=.]""")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a file.

    Attributes:
        file: the file.
        path: names from the outermost table to this one.
        values: its content.
    """

    file: Path
    path: tuple[str, ...]
    values: dict[str, Any]

    @classmethod
    def read(cls, file: Path, path: tuple[str, ...]) -> Self | None:
        """Read a table; ``None`` if there is no such file, or no such table in it.

        Raises:
            RefError: the file is no TOML, or something else has the table's name.
        """
        if not file.is_file():
            return None
        try:
            value: Any = tomllib.loads(file.read_text("utf-8"))
        except ValueError as error:
            message = f"{file} is no TOML: {error}"
            raise RefError(message, hint="correct the file") from None
        table: Self | None = cls(file, (), value)
        for name in path:
            table = table.inner(name) if table else None
        return table

    def inner(self, name: str) -> Self | None:
        """Return a table of this table; ``None`` if there is none.

        Raises:
            RefError: something else has the name.
        """
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.error(name, f"is no table; write [{'.'.join((*self.path, name))}]")
        return None if value is None else replace(self, path=(*self.path, name), values=value)

    @property
    def folder(self) -> Path:
        """The file's folder."""
        return self.file.parent

    def error(self, key: str, what: str) -> RefError:
        """Return the error for one key, with its line."""
        line = self._line(key)
        place = f"{self.file}:{line}" if line else str(self.file)
        message = f"{place}: {'.'.join((*self.path, key))} {what}"
        return RefError(
            message, hint="correct the line; 'loractl validate --help' lists the options"
        )

    def _line(self, key: str) -> int | None:
        table: tuple[str, ...] = ()
        for number, line in enumerate(self.file.read_text("utf-8").splitlines(), 1):
            if header := _HEADER.fullmatch(line):
                table = _names(header[1].split("."))
                if table[: len(self.path) + 1] == (*self.path, key):
                    return number
            elif table == self.path and (found := _KEY.match(line)) and found[1] == key:
                return number
        return None


def _names(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in parts)
