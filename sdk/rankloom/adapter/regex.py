r"""Regular expressions of strangers, matched in linear time or refused.

An adapter's config may hold expressions that PEFT and serving engines hand to ``re``, where a
short one can run for hours. Here a small subset of Python's syntax is parsed and simulated as a
nondeterministic automaton (Thompson, CACM 11(6), 1968): time is text length times states. What
would still make a backtracking matcher slow, such as a repeat within a repeat, is refused, since
the adapter must not hang the programs behind us either.

The subset: literals, ``.``, classes, ``\d \w \s \b``, groups, ``|``, ``^ $``, and
``* + ? {m,n}`` greedy or lazy. It accepts exactly the texts that ``re.fullmatch`` accepts, for
texts without line breaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rankloom.adapter.regex_parser import Assertion, Node, UnsafeRegexError, parse

if TYPE_CHECKING:
    from rankloom.adapter.regex_parser import Chars

__all__ = ["Regex", "UnsafeRegexError", "compile_regex"]

MAX_STATES = 5000
"""States of the automaton; unsloth's expression for a vision model needs about 300."""


@dataclass(frozen=True, slots=True)
class _Program:
    """The automaton: state i consumes a character, asserts something, or splits."""

    chars: tuple[Chars | None, ...]
    asserts: tuple[str | None, ...]
    follow: tuple[tuple[int, ...], ...]
    accept: int


class Regex:
    """An expression of the safe subset."""

    def __init__(self, program: _Program) -> None:
        self._program = program

    def fullmatch(self, text: str) -> bool:
        """Tell whether the whole text matches."""
        program = self._program
        current = self._closure([0], text, 0)
        for position, char in enumerate(text):
            step = [
                target
                for state in current
                if (chars := program.chars[state]) is not None and chars.matches(char)
                for target in program.follow[state]
            ]
            if not step:
                return False
            current = self._closure(step, text, position + 1)
        return program.accept in current

    def _closure(self, states: list[int], text: str, position: int) -> set[int]:
        program, seen, pending = self._program, set[int](), states
        while pending:
            state = pending.pop()
            if state in seen:
                continue
            seen.add(state)
            if program.chars[state] is not None:
                continue
            kind = program.asserts[state]
            if kind is None or _holds(kind, text, position):
                pending.extend(program.follow[state])
        return seen


def _holds(kind: str, text: str, position: int) -> bool:
    if kind == "^":
        return position == 0
    if kind == "$":
        return position == len(text)
    before = position > 0 and _is_word(text[position - 1])
    after = position < len(text) and _is_word(text[position])
    return (before != after) == (kind == "b")


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


@lru_cache(maxsize=256)
def compile_regex(pattern: str) -> Regex:
    """Return the automaton of a pattern.

    Raises:
        UnsafeRegexError: the pattern is outside the safe subset.
    """
    builder = _Builder()
    start = builder.state()
    end = builder.build(parse(pattern), start)
    return Regex(builder.program(end))


class _Builder:
    """Appends states; every node is entered at one state and left at another."""

    def __init__(self) -> None:
        self._chars: list[Chars | None] = []
        self._asserts: list[str | None] = []
        self._follow: list[list[int]] = []

    def state(self) -> int:
        """Add a state that consumes nothing and leads nowhere yet."""
        if len(self._follow) >= MAX_STATES:
            message = f"it needs more than {MAX_STATES} states"
            raise UnsafeRegexError(message)
        self._chars.append(None)
        self._asserts.append(None)
        self._follow.append([])
        return len(self._follow) - 1

    def program(self, accept: int) -> _Program:
        """Return what was built."""
        follow = tuple(tuple(targets) for targets in self._follow)
        return _Program(tuple(self._chars), tuple(self._asserts), follow, accept)

    def build(self, node: Node, start: int) -> int:
        """Add a node behind ``start`` and return the state behind it."""
        end = start
        for _ in range(node.least):
            end = self._once(node, end)
        if node.most is None:
            return self._loop(node, end)
        exits = [end]
        for _ in range(node.most - node.least):
            end = self._once(node, end)
            exits.append(end)
        return self._join(exits) if len(exits) > 1 else end

    def _loop(self, node: Node, start: int) -> int:
        inner = self._join([start])
        self._follow[self._once(node, inner)].append(inner)
        return self._join([inner])

    def _join(self, states: list[int]) -> int:
        end = self.state()
        for state in states:
            self._follow[state].append(end)
        return end

    def _once(self, node: Node, start: int) -> int:
        if isinstance(node.what, tuple):
            return self._join([self._sequence(branch, start) for branch in node.what])
        inner = self._join([start])
        if isinstance(node.what, Assertion):
            self._asserts[inner] = node.what.kind
        else:
            self._chars[inner] = node.what
        return self._join([inner])

    def _sequence(self, nodes: tuple[Node, ...], start: int) -> int:
        end = self._join([start])
        for node in nodes:
            end = self.build(node, end)
        return end
