"""Semantic versions (semver.org), by which people may name versions, and ranges of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import semver

from rankloom.errors import RefError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LENGTH = 64
_HINT = "write e.g. 1.2.0 or 1.2.0-rc.1, and for the newest of a range ^1.2 or ~1.2.3"
_RANGE = re.compile(r"([\^~])(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?", re.ASCII)


def is_range(text: str) -> bool:
    """Say whether a text names a range rather than one version."""
    return text[:1] in {"^", "~"}


def check(text: str) -> str:
    """Return ``text`` if it is one semantic version.

    Build metadata (``+…``) is refused: it has no place in the order of versions.

    Raises:
        RefError: it is none.
    """
    if len(text) > MAX_LENGTH or not semver.Version.is_valid(text) or "+" in text:
        message = f"{text[:80]!r} is no semantic version"
        raise RefError(message, hint=_HINT)
    return text


def check_wanted(text: str) -> str:
    """Return ``text`` if it is a semantic version or a range.

    Raises:
        RefError: it is neither.
    """
    if is_range(text):
        _bounds(text)
        return text
    return check(text)


def newest(wanted: str, known: Iterable[str]) -> str | None:
    """Return the highest of the known versions that a range holds, ``None`` if it holds none.

    ``^`` takes what changes nothing left of the first number that is not zero, ``~`` what changes
    the last of three numbers only. Prereleases are in no range.
    """
    low, high = _bounds(wanted)
    versions = (semver.Version.parse(text) for text in known)
    found = [one for one in versions if low <= one < high and one.prerelease is None]
    return str(max(found)) if found else None


def _bounds(text: str) -> tuple[semver.Version, semver.Version]:
    """Return the least version of a range, and the least one above it."""
    matched = _RANGE.fullmatch(text)
    if matched is None:
        message = f"{text[:80]!r} is no range of semantic versions"
        raise RefError(message, hint=_HINT)
    given = [int(part) for part in matched.groups()[1:] if part is not None]
    low = semver.Version(*given)
    if matched[1] == "~":
        place = min(len(given), 2) - 1
    else:
        place = next((n for n, part in enumerate(given) if part), len(given) - 1)
    above = [*given[:place], given[place] + 1]
    return low, semver.Version(*above)
