"""Chat templates that an adapter's folder brings: compared with the base's, and never rendered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from rankloom.finding import Finding, Severity
from rankloom.tensorfile import strict_json
from rankloom.validate.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rankloom.adapter.reader import Adapter
    from rankloom.base.model import Base

_Over = Literal["input", "range", "other"]

_TEXT = "chat_template.jinja"
_JSON = ("chat_template.json", "tokenizer_config.json")
_MAX_BYTES = 8 << 20
_MAX_CHARS = 1 << 18
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_SUM = r"(?:{0})(?: ?[-+] ?(?:{0})){{0,3}}".format(
    r"-?\d{1,2}|(?:messages|tools) ?\| ?(?:length|count)|loop\.(?:index0?|length)"
)
_OF_INPUT = re.compile(
    rf"for \w+ in (?:range ?\( ?{_SUM}(?: ?, ?{_SUM}){{0,2}} ?\)|messages|tools)"
)
"""Loops as long as what a request brings, if its names still mean that."""
_GIVEN = re.compile(r"\b(?:messages|tools|loop)\b")
_TARGETS = re.compile(r"set\b(.*?)(?:=|$)|for\b(.*?)\bin\b|(?:macro|call|with|import|from)\b(.*)")
_LARGE = re.compile(r"(?<![\w.])\d{6,}|\*\*|\d[eE]\d|\d_\d")


class _UnreadableError(ValueError):
    """A file that should hold a template cannot be read."""


def templates(folder: Path) -> dict[str, str]:
    """Return the templates of a folder, each by its file (and its name there).

    Raises:
        ValueError: a file is too large, or is not what its name says.
    """
    found: dict[str, str] = {}
    if (folder / _TEXT).is_file():
        found[_TEXT] = _read(folder / _TEXT)
    for name in _JSON:
        if (folder / name).is_file():
            found |= _of_json(name, _read(folder / name))
    return found


def _read(path: Path) -> str:
    if path.stat().st_size > _MAX_BYTES:
        message = f"{path.name} is larger than {_MAX_BYTES} bytes"
        raise _UnreadableError(message)
    try:
        return path.read_text("utf-8")
    except ValueError:
        message = f"{path.name} is no text in UTF-8"
        raise _UnreadableError(message) from None


def _of_json(name: str, text: str) -> dict[str, str]:
    try:
        value = strict_json.loads(text)
    except ValueError as error:
        message = f"{name} is no JSON: {error}"
        raise _UnreadableError(message) from None
    given = value.get("chat_template") if isinstance(value, dict) else None
    if isinstance(given, str):
        return {name: given}
    several = given if isinstance(given, list) else []
    return {f"{name} {_text(one, 'name')}": _text(one, "template") for one in several}


def _text(value: Any, key: str) -> str:  # noqa: ANN401 - a JSON value
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def endless(adapter: Adapter) -> Iterator[Finding]:
    """SEC006: no template can loop for ever or fill the memory, as far as its text tells."""
    try:
        found = templates(adapter.path)
    except ValueError as error:
        yield RULES["SEC006"].finding(str(error), where=str(error).partition(" ")[0])
        return
    for name, text in found.items():
        if what := _endless(text):
            yield RULES["SEC006"].finding(f"{name} {what}", where=name.partition(" ")[0])


def _endless(text: str) -> str:
    if len(text) > _MAX_CHARS:
        return f"has {len(text)} characters, more than {_MAX_CHARS}"
    tags = [" ".join(tag.strip("-+ \t\r\n").split()) for tag in _code(text)]
    own = {name for tag in tags for name in _made(tag)}
    loops: list[_Over] = []
    for tag in tags:
        if _LARGE.search(tag):
            return f"counts far: {tag[:80]!r}"
        if tag.startswith("for"):
            over = _over(tag, own, loops[-1] if loops else "other")
            if over == "range" and over in loops:
                return f"loops over a range within a loop over a range: {tag[:80]!r}"
            loops.append(over)
        elif tag.startswith("endfor") and loops:
            loops.pop()
    return ""


def _made(tag: str) -> list[str]:
    """Return names of what requests bring that a tag gives a meaning of its own."""
    found = _TARGETS.match(tag)
    return _GIVEN.findall(" ".join(part or "" for part in found.groups())) if found else []


def _over(tag: str, own: set[str], outer: _Over) -> _Over:
    """Tell what a loop goes over."""
    used = set(_GIVEN.findall(tag)) if _OF_INPUT.fullmatch(tag) else set()
    # Within a loop over anything else, its index is as large as that.
    if used and not used & own and (outer == "input" or "loop" not in used):
        return "input"
    return "range" if "range" in tag else "other"


def _code(text: str) -> Iterator[str]:
    """Yield the code of each tag without what it quotes."""
    for opened, closed in (("{%", "%}"), ("{{", "}}")):
        for part in text.split(opened)[1:]:
            yield _QUOTED.sub("''", part.partition(closed)[0])


def differing(adapter: Adapter, base: Base) -> Iterator[Finding]:
    """SEC005: every template is one of the base's; a warning where the base has none."""
    try:
        brought, known = templates(adapter.path), _of_base(base)
    except ValueError as error:
        yield RULES["SEC005"].finding(str(error))
        return
    if known is None:
        return
    for name, text in brought.items():
        if text.strip() not in known:
            yield _differs(name, has_one=bool(known))


def _of_base(base: Base) -> set[str] | None:
    """Return the base's templates; ``None`` if it comes without a tokenizer, which has them."""
    files = (_TEXT, *_JSON, "tokenizer.json")
    if not base.files or not any((base.path / name).is_file() for name in files):
        return None
    return {text.strip() for text in templates(base.path).values()}


def _differs(name: str, *, has_one: bool) -> Finding:
    where = name.partition(" ")[0]
    if has_one:
        return RULES["SEC005"].finding(f"the template of {name} is not the base's", where=where)
    message = f"{name} brings a chat template, and the base has none"
    return Finding("SEC005", message, Severity.WARNING, where=where)
