"""How transformers renames the tensors of a checkpoint while it loads them.

A rule has patterns that are searched in a name and texts that replace what was found. The rules,
their order and their meaning are those of ``transformers.core_model_loading``; what is kept of them
as data is described in ``scripts/transformers_names.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LAYER_PAIRS = re.compile(r"layers\.(\d+)\.(mixer|attn_alpha|mlp_alpha)(?=\.|$)")
_PAIR_NAMES = {"attn_alpha": "lambda_1", "mlp_alpha": "lambda_2"}


@dataclass(frozen=True)
class Rule:
    r"""One renaming, or with ``operations`` one conversion of tensors that also renames them.

    Attributes:
        kind: transformers' class of it.
        sources: patterns (regular expressions in which ``*.`` is any text before a dot).
        targets: what replaces a match; ``\1`` is the match's own group.
        operations: name and arguments of what is done to the tensors, in order.
        offset: added to the number in the match's group.
        scope: only names below this module, with or without the backbone's prefix; ``None``: all.
        prefix: name of the backbone in the model.
    """

    kind: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    operations: tuple[tuple[Any, ...], ...] = ()
    offset: int = 0
    scope: str | None = None
    prefix: str = ""

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # transformers' own order: longest first, since the first branch that matches wins.
        numbered = sorted(enumerate(self.sources), key=lambda item: -len(item[1]))
        return re.compile("|".join(f"(?P<g{n}>{_expression(text)})" for n, text in numbered))

    def apply(self, name: str, state: set[Rule]) -> tuple[str, int | None]:
        """Return the new name, and the number of the source that matched (``None``: none did).

        Args:
            name: a name.
            state: the rules that were begun, for those of which a later part needs the first.
        """
        if self.kind == "LayerPairCollapse":
            return _layer_pairs(name)
        scope = self._scope_of(name)
        found = None if scope is None else self._pattern.search(name[len(scope) :])
        if scope is None or found is None:
            return name, None
        number = next(int(key[1:]) for key, value in found.groupdict().items() if value is not None)
        if self.kind == "GroupWeightRename":
            if number == 0:
                state.add(self)
            elif self not in state:
                return name, None
        new = self._replacement(found, number)
        return scope + name[len(scope) :].replace(found.group(0), new, 1), number

    def _scope_of(self, name: str) -> str | None:
        if self.scope is None:
            return ""
        below = f"{self.scope}." if self.scope else ""
        full = (f"{self.prefix}." if self.prefix else "") + below
        return next((start for start in (full, below) if name.startswith(start)), None)

    def _replacement(self, found: re.Match[str], number: int) -> str:
        first = found.re.groupindex[f"g{number}"]
        if self.kind == "GroupWeightRename":
            groups = re.compile(r"\\(\d+)")
            return groups.sub(lambda m: found.group(first + int(m[1])), self.targets[number])
        new = self.targets[0]
        if r"\1" not in new:
            return new
        group = found.group(first + 1)
        return new.replace(r"\1", str(int(group) + self.offset) if self.offset else group)


def _expression(source: str) -> str:
    text = source.replace("*.", r".*\.")
    # A pattern ends where a part of a name ends, unless it says otherwise.
    return text + (r"(?!\w)" if re.search(r"[a-zA-Z0-9]$", text) else "")


def _layer_pairs(name: str) -> tuple[str, int | None]:
    found = _LAYER_PAIRS.search(name)
    if found is None:
        return name, None
    index = int(found[1])
    part = _PAIR_NAMES.get(found[2], ("self_attn", "mlp")[index % 2])
    return f"{name[: found.start()]}layers.{index // 2}.{part}{name[found.end() :]}", 0


@dataclass(frozen=True)
class Rules:
    """The rules of one model, in order: all renamings, then at most one conversion.

    Attributes:
        rules: all of them.
        kept: names, with ``*`` for each number, that stay as they are.
    """

    rules: tuple[Rule, ...]
    kept: frozenset[str] = frozenset()
    _begun: set[Rule] = field(default_factory=set, compare=False, repr=False)

    @cached_property
    def _renamings(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if not rule.operations)

    @cached_property
    def conversions(self) -> tuple[Rule, ...]:
        """The rules that do more than rename."""
        return tuple(rule for rule in self.rules if rule.operations)

    def apply(self, name: str) -> tuple[str, Rule | None, int]:
        """Return the name in the model, the conversion, and which of its sources this is."""
        if self.kept and template(name) in self.kept:
            return name, None, 0
        for rule in self._renamings:
            name, _ = rule.apply(name, self._begun)
        for rule in self.conversions:
            new, number = rule.apply(name, self._begun)
            if number is not None:
                return new, rule, number
        return name, None, 0


def template(name: str) -> str:
    """Return a name with ``*`` for each part that is a number."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def natural(name: str) -> list[tuple[int, int, str, int]]:
    """Return a key that sorts names as transformers does: numbers by value, before words."""
    key = []
    for part in name.split("."):
        word = part.rstrip("0123456789")
        number = int(part[len(word) :] or -1)
        key.append((0, number, "", 0) if part.isdigit() else (1, 0, word, number))
    return key


def rule_of(value: Mapping[str, Any], scope: str | None, prefix: str) -> Rule:
    """Return a rule that is kept as data."""
    operations: Sequence[Sequence[Any]] = value.get("ops", ())
    return Rule(
        value["kind"],
        tuple(value["from"]),
        tuple(value["to"]),
        tuple(tuple(operation) for operation in operations),
        value.get("offset", 0),
        scope,
        prefix,
    )
