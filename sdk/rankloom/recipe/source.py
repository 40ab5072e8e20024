"""YAML as values that remember their lines, so that every complaint can name one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from rankloom.errors import RefError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Path = tuple[str | int, ...]
"""Where a value stands: keys and indices from the top."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Source:
    """A YAML document.

    Attributes:
        name: what messages call it.
        value: plain dicts, lists, texts, numbers, booleans and ``None``.
        lines: line of each value, from 1.
    """

    name: str
    value: Any
    lines: Mapping[Path, int] = field(default_factory=dict)

    def error(self, where: Path, what: str, hint: str = "") -> RefError:
        """Return an error that names the line of the value at ``where``."""
        return RefError(f"MRG007 {self.line(where)}: {what}", hint=hint)

    def line(self, where: Path) -> str:
        """Return file and line of the value at ``where``, or of what it would stand in."""
        while where not in self.lines and where:
            where = where[:-1]
        return f"{self.name}, line {self.lines.get(where, 1)}"


def parse(text: str, name: str = "recipe") -> Source:
    """Read YAML without tags, aliases, duplicate keys or deep nesting.

    Raises:
        RefError: it is not such a document; the message names the line.
    """
    if len(text) > MAX_BYTES:
        message = f"MRG007 {name} is longer than {MAX_BYTES} characters"
        raise RefError(message, hint="a recipe is a short text")
    try:
        _check(yaml.parse(text, Loader=yaml.SafeLoader), name)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        message = f"MRG007 {name}, line {line}: {error.problem}"
        raise RefError(message, hint="this is not YAML") from error
    except (yaml.YAMLError, RecursionError) as error:
        message = f"MRG007 {name} is not YAML: {str(error)[:200]}"
        raise RefError(message) from error
    lines: dict[Path, int] = {}
    value = None if node is None else _value(node, (), lines, name)
    return Source(name, value, lines)


def _check(events: Iterator[yaml.Event], name: str) -> None:
    """Refuse what a recipe never needs: a few lines of aliases can unfold to gigabytes."""
    depth = 0
    for event in events:
        opens = isinstance(event, yaml.CollectionStartEvent)
        depth += opens - isinstance(event, yaml.CollectionEndEvent)
        what = ""
        if isinstance(event, yaml.AliasEvent):
            what = "aliases are not allowed"
        elif isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) is not None:
            what = "tags are not allowed"
        elif depth > MAX_DEPTH:
            what = f"nested deeper than {MAX_DEPTH} levels"
        if what:
            line = event.start_mark.line + 1 if event.start_mark else 1
            message = f"MRG007 {name}, line {line}: {what}"
            raise RefError(message, hint="write plain texts, numbers, lists and keys")


def _value(node: yaml.Node, where: Path, lines: dict[Path, int], name: str) -> Any:  # noqa: ANN401
    lines[where] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        items = enumerate(node.value)
        return [_value(item, (*where, index), lines, name) for index, item in items]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, where, lines, name)
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:  # e.g. a date of the 31st of February
        message = f"MRG007 {name}, line {node.start_mark.line + 1}: cannot read {node.value[:80]!r}"
        raise RefError(message, hint="put texts that look like something else in quotes") from error


def _mapping(
    node: yaml.MappingNode, where: Path, lines: dict[Path, int], name: str
) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        line = key_node.start_mark.line + 1
        if not isinstance(key, str) or key in value:
            message = f"MRG007 {name}, line {line}: key {str(key)[:80]!r} is there twice or no text"
            raise RefError(message, hint="keys are different texts")
        value[key] = _value(value_node, (*where, key), lines, name)
        lines[*where, key] = line
    return value
