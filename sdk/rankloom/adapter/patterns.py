r"""Which modules a config names: PEFT's matching rules, with no stranger's regex run unbounded.

In ``rank_pattern`` and ``alpha_pattern`` the first key, in the file's order, wins for which
``re.match(rf"(.*\.)?({key})$", module)`` matches (``peft.utils.other.get_pattern_key``). Nearly
all keys are plain names, in which a ``.`` still means any character; those are looked up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.adapter.regex import Regex, UnsafeRegexError, compile_regex
from rankloom.adapter.regex_parser import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["PatternTable", "TargetRule", "UnsafeRegexError"]

_PLAIN = re.compile(r"\^?(?:[A-Za-z0-9_.-]|\\[^A-Za-z0-9])+", re.ASCII)
_MAX_PATTERNS = 100_000


@dataclass(frozen=True, slots=True)
class _Form:
    """What plain keys must share to be looked up together: where any character will do."""

    length: int
    anchored: bool
    wild: tuple[int, ...]

    def of(self, module: str) -> str | None:
        """Return the part of a module's name that a key of this form could be, dots filled in."""
        start = len(module) - self.length
        if start < 0 or (start and (self.anchored or module[start - 1] != ".")):
            return None
        part = module[start:]
        for place in self.wild:
            if part[place] != ".":
                part = f"{part[:place]}.{part[place + 1 :]}"
        return part


class PatternTable:
    """Keys of a ``rank_pattern`` or ``alpha_pattern``.

    Raises:
        UnsafeRegexError: a key is a regular expression outside the safe subset.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._plain: dict[_Form, dict[str, int]] = {}
        self._regexes: list[tuple[int, Regex]] = []
        self._keys = list(keys)
        if len(self._keys) > _MAX_PATTERNS:
            message = f"there are {len(self._keys)} patterns"
            raise UnsafeRegexError(message)
        for index, key in enumerate(self._keys):
            self._add(index, key)

    def _add(self, index: int, key: str) -> None:
        if not _PLAIN.fullmatch(key):
            parse(key)  # alone, so that no ')' of it closes the group around it
            self._regexes.append((index, compile_regex(rf"(.*\.)?({key})")))
            return
        text, wild = _unescape(key.removeprefix("^"))
        form = _Form(len(text), key.startswith("^"), wild)
        self._plain.setdefault(form, {}).setdefault(text, index)

    def find(self, module: str) -> str | None:
        """Return the key that decides for a module, or ``None`` if none matches it."""
        found = [index for index, regex in self._regexes if regex.fullmatch(module)]
        for form, keys in self._plain.items():
            part = form.of(module)
            if part is not None and part in keys:
                found.append(keys[part])
        return self._keys[min(found)] if found else None


def _unescape(key: str) -> tuple[str, tuple[int, ...]]:
    """Return a plain key without backslashes, and the places where any character matches."""
    text, wild, escaped = "", [], False
    for char in key:
        if char == "\\" and not escaped:
            escaped = True
            continue
        if char == "." and not escaped:
            wild.append(len(text))
        text += char
        escaped = False
    return text, tuple(wild)


@dataclass(frozen=True, slots=True)
class TargetRule:
    """``target_modules`` or ``exclude_modules``: a regular expression, or names and endings.

    Attributes:
        names: full names or endings at a dot; unused for an expression.
        regex: matches full names; ``None`` for a list.
    """

    names: tuple[str, ...] = ()
    regex: Regex | None = None

    @classmethod
    def of(cls, value: str | tuple[str, ...]) -> TargetRule:
        """Read the config's value.

        Raises:
            UnsafeRegexError: it is an expression outside the safe subset.
        """
        if isinstance(value, str):
            return cls(regex=compile_regex(value))
        return cls(names=value)

    def matches(self, module: str) -> bool:
        """Tell whether the rule names a module (``peft.tuners.tuners_utils``)."""
        if self.regex is not None:
            return self.regex.fullmatch(module)
        return any(ends_with(module, name) for name in self.names)

    def unused(self, modules: Mapping[str, object]) -> list[str]:
        """Return the names of a list that name none of ``modules``."""
        endings = {module[start:] for module in modules for start in _starts(module)}
        return [name for name in self.names if name not in endings]


def ends_with(module: str, name: str) -> bool:
    """Tell whether a module has this name, or ends in it at a dot."""
    return module == name or module.endswith("." + name)


def _starts(module: str) -> list[int]:
    return [0, *(place + 1 for place, char in enumerate(module) if char == ".")]
