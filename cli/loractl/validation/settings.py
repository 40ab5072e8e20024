"""The settings of ``loractl validate``: a file of the project, over which the command line wins.

The file is ``loractl.toml`` (table ``[validate]``) or ``pyproject.toml`` (table
``[tool.loractl.validate]``) of the working directory or the nearest folder above that has one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loractl.validation.tomlfile import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FILES = {"loractl.toml": (), "pyproject.toml": ("tool", "loractl")}
"""Name of each file that is looked for, and the table in it that is ours."""

_TABLE = "validate"
FAIL_ON = ("error", "warning", "info")
LEVELS = ("struct", "bf16", "exact")


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be set for a run; unset is ``None`` or empty.

    Attributes:
        against: the base's folder or name.
        engines: serving engines that must serve what was trained.
        select: rules that count, by id or beginning.
        ignore: rules that do not.
        ignore_in: rules that do not, by pattern of the adapter's name.
        fail_on: the least severity that fails.
        level: how well the base must be known.
        baseline: file of known findings.
        headers_only: whether values are left unread.
        probe: whether the base is run on a few tokens.
    """

    against: str | None = None
    engines: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    ignore_in: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fail_on: str | None = None
    level: str | None = None
    baseline: Path | None = None
    headers_only: bool | None = None
    probe: bool | None = None

    def over(self, other: Settings) -> Settings:
        """Return these settings, with what they leave unset taken from others."""
        chosen = {
            item.name: mine if (mine := getattr(self, item.name)) else getattr(other, item.name)
            for item in fields(self)
        }
        return Settings(**chosen)


def find(start: Path) -> Settings:
    """Return the settings of the nearest file; those of none are empty.

    Raises:
        RefError: the file is broken, or a key is unknown or of another type; names the line.
    """
    for folder in (start, *start.parents):
        for name, path in FILES.items():
            table = Table.read(folder / name, path)
            if table is not None:
                return _settings(table)
    return Settings()


def _settings(whole: Table) -> Settings:
    for key in whole.values:
        if key != _TABLE:
            raise whole.error(key, f"is unknown; known is the table {_TABLE}")
    return _validate(table) if (table := whole.inner(_TABLE)) else Settings()


def _validate(table: Table) -> Settings:
    given: dict[str, Any] = {}
    for key, value in table.values.items():
        if key not in _KEYS:
            raise table.error(key, f"is unknown; known are {', '.join(_KEYS)}")
        name, parse = _KEYS[key]
        try:
            given[name] = parse(value)
        except ValueError as error:
            raise table.error(key, str(error)) from None
    for name in ("baseline", "against"):
        given |= _placed(table, name, given.get(name))
    return Settings(**given)


def _placed(table: Table, name: str, value: str | None) -> dict[str, Any]:
    """Take a path of the file from the file's folder, not from where the command runs."""
    if value is None:
        return {}
    if name == "baseline":
        return {name: table.folder / value}
    is_path = "://" not in value and ("/" in value or value.startswith((".", "~")))
    return {name: str(table.folder / Path(value).expanduser()) if is_path else value}


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    message = "must be a text"
    raise ValueError(message)


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(item.upper() for item in value)
    message = "must be a list of rules, e.g. ['TEN006']"
    raise ValueError(message)


def _engines(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    message = "must be a list of engines, e.g. ['vllm==0.33']"
    raise ValueError(message)


def _by_pattern(value: object) -> dict[str, tuple[str, ...]]:
    if isinstance(value, dict):
        return {pattern: _texts(rules) for pattern, rules in value.items()}
    message = "must be a table of patterns, each with a list of rules"
    raise ValueError(message)


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    message = "must be true or false"
    raise ValueError(message)


def _one_of(choices: tuple[str, ...]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value in choices:
            return str(value)
        message = f"must be one of {', '.join(choices)}"
        raise ValueError(message)

    return parse


_KEYS: dict[str, tuple[str, Callable[[object], Any]]] = {
    "against": ("against", _text),
    "engines": ("engines", _engines),
    "select": ("select", _texts),
    "ignore": ("ignore", _texts),
    "per-adapter-ignores": ("ignore_in", _by_pattern),
    "fail-on": ("fail_on", _one_of(FAIL_ON)),
    "level": ("level", _one_of(LEVELS)),
    "baseline": ("baseline", _text),
    "headers-only": ("headers_only", _switch),
    "probe": ("probe", _switch),
}
"""Keys of the file, the setting that each one is, and how it is read."""
