"""Parses the safe subset of regular expressions; see :mod:`rankloom.adapter.regex`."""

from __future__ import annotations

from dataclasses import dataclass, replace

MAX_CHARS = 2000
MAX_DEPTH = 20
MAX_COUNT = 256
"""The highest number in braces; each counts as a copy of what it repeats."""
MAX_REPEATS = 8
"""Unbounded repeats in one expression: a backtracking matcher may try n^repeats ways."""

_SPECIAL = frozenset("\\.[](){}|*+?^$")
_CLASSES = frozenset("dDwWsS")
# What re would read as a letter's special meaning, and we do not offer, must not become a letter.
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}


class UnsafeRegexError(ValueError):
    """The expression is broken, or not in the safe subset."""


@dataclass(frozen=True, slots=True)
class Chars:
    r"""A set of characters.

    Attributes:
        ranges: pairs of first and last character.
        classes: letters of ``\d \w \s`` and their complements.
        negated: the set holds all other characters.
    """

    ranges: tuple[tuple[str, str], ...] = ()
    classes: str = ""
    negated: bool = False

    def matches(self, char: str) -> bool:
        """Tell whether the set holds a character."""
        found = any(first <= char <= last for first, last in self.ranges)
        found = found or any(_in_class(letter, char) for letter in self.classes)
        return found != self.negated


def _in_class(letter: str, char: str) -> bool:
    kind = letter.lower()
    if kind == "d":
        found = char.isdecimal()
    elif kind == "s":
        found = char.isspace()
    else:
        found = char.isalnum() or char == "_"
    return found == letter.islower()


@dataclass(frozen=True, slots=True)
class Assertion:
    """A place: ``^``, ``$``, ``b`` (word boundary) or ``B`` (none)."""

    kind: str


@dataclass(frozen=True, slots=True)
class Node:
    """One item of a sequence, repeated ``least`` to ``most`` times (``None``: without end)."""

    what: Chars | Assertion | tuple[tuple[Node, ...], ...]
    least: int = 1
    most: int | None = 1

    @property
    def is_plain(self) -> bool:
        """Whether there is one way to match it at a place: no repeat, no choice within."""
        if not isinstance(self.what, tuple):
            return True
        return len(self.what) == 1 and all(
            (node.least, node.most) == (1, 1) and node.is_plain for node in self.what[0]
        )


ANY = Chars(ranges=(("\n", "\n"),), negated=True)


def parse(pattern: str) -> Node:
    """Return the tree of an expression.

    Raises:
        UnsafeRegexError: it is broken or outside the subset.
    """
    if len(pattern) > MAX_CHARS:
        message = f"it is longer than {MAX_CHARS} characters"
        raise UnsafeRegexError(message)
    parser = _Parser(pattern)
    node = parser.alternatives(0)
    if parser.peek():
        raise parser.error("a ')' too many")
    return node


class _Parser:
    """Recursive descent over the pattern; depth and repeats are bounded."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._repeats = 0

    def peek(self, length: int = 1) -> str:
        return self._pattern[self._at : self._at + length]

    def take(self) -> str:
        char = self.peek()
        if not char:
            raise self.error("an end too early")
        self._at += 1
        return char

    def skip(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found

    def error(self, what: str) -> UnsafeRegexError:
        return UnsafeRegexError(f"it has {what} at position {self._at}")

    def alternatives(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self.error("groups nested too deeply")
        branches = [self._sequence(depth)]
        while self.skip("|"):
            branches.append(self._sequence(depth))
        return Node(tuple(branches))

    def _sequence(self, depth: int) -> tuple[Node, ...]:
        nodes: list[Node] = []
        while self.peek() not in {"", "|", ")"}:
            nodes.append(self._repeat(self._atom(depth)))
        return tuple(nodes)

    def _atom(self, depth: int) -> Node:
        char = self.take()
        if char == "(":
            return self._group(depth)
        if char == "[":
            return Node(self._set())
        if char == "\\":
            return self._escape()
        if char == ".":
            return Node(ANY)
        if char in "^$":
            return Node(Assertion(char))
        if char in "*+?{":  # re takes a lone '{' for a letter; nobody means that
            raise self.error(f"a {char!r} that repeats nothing")
        return Node(Chars(((char, char),)))

    def _group(self, depth: int) -> Node:
        if self.peek() == "?" and not self.skip("?:"):
            raise self.error("a group of a kind that is not offered")
        node = self.alternatives(depth + 1)
        if not self.skip(")"):
            raise self.error("an open group")
        return node

    def _escape(self) -> Node:
        char = self.take()
        if char in "bB":
            return Node(Assertion(char))
        return Node(self._escaped(char))

    def _escaped(self, char: str) -> Chars:
        if char in _CLASSES:
            return Chars(classes=char)
        if char in _ESCAPES:
            return Chars(((_ESCAPES[char],) * 2,))
        if char.isascii() and char.isalnum():
            raise self.error(f"the escape \\{char}, which is not offered,")
        return Chars(((char, char),))

    def _set(self) -> Chars:
        negated = self.skip("^")
        ranges: list[tuple[str, str]] = []
        classes = ""
        first = True
        while first or self.peek() != "]":
            item = self._set_item()
            first = False
            if item.classes:
                classes += item.classes
            elif self.peek() == "-" and self.peek(2) not in {"-]", "-"}:
                self.take()
                ranges.append(self._range(item, self._set_item()))
            else:
                ranges += item.ranges
        self.take()
        return Chars(tuple(ranges), classes, negated)

    def _set_item(self) -> Chars:
        char = self.take()
        if char == "[" or self._pattern[self._at - 1 : self._at + 1] in {"--", "&&", "||", "~~"}:
            raise self.error("a set within a set")  # re warns that its meaning may change
        if char != "\\":
            return Chars(((char, char),))
        escaped = self.take()
        return Chars((("\b", "\b"),)) if escaped == "b" else self._escaped(escaped)

    def _range(self, low: Chars, high: Chars) -> tuple[str, str]:
        if high.classes or low.ranges[0][0] > high.ranges[0][0]:
            raise self.error("a range that is none")
        return low.ranges[0][0], high.ranges[0][0]

    def _repeat(self, node: Node) -> Node:
        bounds = self._bounds()
        if bounds is None:
            return node
        if self.peek() == "+":
            raise self.error("a possessive repeat")
        self.skip("?")
        if self.peek() in {"*", "+", "?"} or (self.peek() == "{" and self._bounds()):
            raise self.error("a repeat of a repeat")
        if isinstance(node.what, Assertion):
            raise self.error("a repeated place")
        least, most = bounds
        self._check_repeat(node, most)
        return replace(node, least=least, most=most)

    def _check_repeat(self, node: Node, most: int | None) -> None:
        if (most is None or most > 1) and not node.is_plain:
            raise self.error("a repeat around a repeat or a choice")
        self._repeats += most is None
        if self._repeats > MAX_REPEATS:
            raise self.error(f"more than {MAX_REPEATS} unbounded repeats")

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.skip(sign):
                return bounds
        return self._braces() if self.skip("{") else None

    def _braces(self) -> tuple[int, int | None]:
        body, brace, _ = self._pattern[self._at :].partition("}")
        low, comma, high = body.partition(",")
        if not brace or not all(part.isascii() and part.isdigit() for part in (low, high or "0")):
            raise self.error("braces without numbers")
        self._at += len(body) + 1
        if max(len(low), len(high)) > 3:
            raise self.error("braces with more than three digits")
        least = int(low)
        most = least if not comma else int(high) if high else None
        if max(least, most or 0) > MAX_COUNT or (most is not None and most < least):
            raise self.error(f"braces that count wrongly, or beyond {MAX_COUNT},")
        return least, most
