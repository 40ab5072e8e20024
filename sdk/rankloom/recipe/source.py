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
        while where not in self.lines and where:
            where = where[:-1]
        line = self.lines.get(where, 1)
        return RefError(f"MRG007 {self.name}, line {line}: {what}", hint=hint)


def parse(text: str, name: str = "recipe") -> Source:
    """Read YAML without tags, aliases or duplicate keys.

    Raises:
        RefError: it is not such a document; the message names the line.
    """
    if len(text) > MAX_BYTES:
        message = f"MRG007 {name} is longer than {MAX_BYTES} characters"
        raise RefError(message, hint="a recipe is a short text")
    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        _refuse_aliases(events, name)  # a few lines of aliases can unfold to gigabytes
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


def _refuse_aliases(events: Iterator[yaml.Event], name: str) -> None:
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            message = f"MRG007 {name}, line {event.start_mark.line + 1}: aliases are not allowed"
            raise RefError(message, hint="write the value out")


def _value(node: yaml.Node, where: Path, lines: dict[Path, int], name: str) -> Any:  # noqa: ANN401
    lines[where] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        items = enumerate(node.value)
        return [_value(item, (*where, index), lines, name) for index, item in items]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, where, lines, name)
    try:
        return _scalars().construct_object(node)
    except yaml.YAMLError as error:
        message = f"MRG007 {name}, line {node.start_mark.line + 1}: {node.value[:80]!r} has a tag"
        raise RefError(message, hint="write a plain text, number or boolean") from error


def _scalars() -> yaml.SafeLoader:
    return yaml.SafeLoader("")


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
