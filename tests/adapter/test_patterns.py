"""Patterns: PEFT's rules and Python's re as oracles, and hostile ones refused in no time."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from rankloom.adapter.patterns import PatternTable, TargetRule, UnsafeRegexError
from rankloom.adapter.regex import compile_regex
from timing import fastest

MODULES = st.lists(st.sampled_from(["a", "b", "ab", "0", "1", "x_y"]), min_size=1, max_size=5).map(
    ".".join
)
PLAIN_KEYS = st.builds(
    lambda anchor, parts, escape: (
        anchor + (re.escape(".".join(parts)) if escape else ".".join(parts))
    ),
    st.sampled_from(["", "^"]),
    st.lists(st.sampled_from(["a", "b", "ab", "0", "x.y"]), min_size=1, max_size=4),
    st.booleans(),
)
ATOMS = st.sampled_from(
    ["a", "b", ".", r"\.", r"\d", r"\w", "[ab]", "[^a]", "[0-9_]", "x", r"\b", r"\S"]
)
REPEATS = st.sampled_from(
    ["", "", "{03}", "{0,002}", "*", "+", "?", "{2}", "{1,3}", "{0,}", "*?", "+?"]
)


@st.composite
def regexes(draw: st.DrawFn, depth: int = 0) -> str:
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        if depth < 2 and draw(st.integers(0, 3)) == 0:
            branches = draw(st.lists(regexes(depth + 1), min_size=1, max_size=3))
            parts.append(draw(st.sampled_from(["(", "(?:"])) + "|".join(branches) + ")")
            parts.append(draw(st.sampled_from(["", "?", "*"])))
        else:
            atom = draw(ATOMS)
            parts.append(atom + ("" if atom == r"\b" else draw(REPEATS)))
    return draw(st.sampled_from(["", "^"])) + "".join(parts) + draw(st.sampled_from(["", "$"]))


@given(regexes(), st.text(alphabet="abx01._", max_size=10))
@example(r"(?:a|b)?[^x-z]{2,3}\b", "aab")
@example(".*decoder.*(SelfAttention|EncDecAttention).*(q|v)$", "decoder.0.SelfAttention.q")
def test_a_safe_expression_matches_as_in_python(pattern: str, text: str) -> None:
    try:
        ours = compile_regex(pattern).fullmatch(text)
    except UnsafeRegexError:
        return
    assert ours == (re.fullmatch(pattern, text) is not None)


@given(st.lists(PLAIN_KEYS | regexes(), max_size=5, unique=True), MODULES)
def test_the_first_key_wins_as_in_peft(keys: list[str], module: str) -> None:
    try:
        found = PatternTable(keys).find(module)
    except UnsafeRegexError:
        return
    assert (found or module) == get_pattern_key(keys, module)


@pytest.mark.parametrize(
    ("key", "module", "matches"),
    [
        ("q_proj", "model.layers.0.q_proj", True),
        ("proj", "model.layers.0.q_proj", False),
        ("^q_proj", "model.q_proj", False),
        ("^model.q_proj", "model.q_proj", True),
        ("layers.0.q_proj", "model.layers.0.q_proj", True),
        ("layers.0", "model.layers_0", True),  # a dot is any character, to PEFT too
        (r"layers\.0", "model.layers_0", False),
        (r"layers\.\d+\.q_proj", "model.layers.12.q_proj", True),
    ],
)
def test_the_rules_of_a_key(key: str, module: str, *, matches: bool) -> None:
    assert (PatternTable([key]).find(module) == key) is matches


HOSTILE = [
    "([a-z_.0-9]+)+!",
    "(a|a)*b",
    "(a*)*b",
    "(.*.*)*x",
    "(a|b|ab)*c",
    "(a{1,5}){1,500}b",
    ".*" * 9 + "!",
    "(?:a+){10}b",
    "a{1000000}",
    "a{3,2}",
    "(" + "abcdefgh" * 100 + "){256}",
    "(" * 5000 + ")" * 5000,
    "(?=a)b",
    "(?P<n>a)",
    r"(a)\1",
    "a*+",
    "a**",
    "[a",
    "a)|(b",
    "(a",
    "*a",
    "a{x}",
    "[[:alpha:]]",
    "x" * 3000 + "*",
]


@pytest.mark.parametrize("pattern", HOSTILE, ids=range(len(HOSTILE)))
def test_what_may_hang_others_is_refused_at_once(pattern: str) -> None:
    def refuse() -> None:
        with pytest.raises(UnsafeRegexError):
            PatternTable([pattern])
        with pytest.raises(UnsafeRegexError):
            TargetRule.of(pattern)

    assert fastest(refuse, 3) < 0.1


def test_the_slowest_accepted_expression_is_fast() -> None:
    regex = compile_regex("(.*\\.)?" + ".*a?" * 7 + "!")
    assert not regex.fullmatch("a" * 500)
    assert fastest(lambda: regex.fullmatch("a" * 500), 3) < 0.5


def test_a_key_per_module_is_looked_up_not_searched() -> None:
    modules = [
        f"model.layers.{layer}.self_attn.{leaf}_proj" for layer in range(80) for leaf in "qkvo"
    ]
    keys = [f"^{re.escape(module)}" for module in modules]

    def look_up() -> list[str | None]:
        table = PatternTable(keys)
        return [table.find(module) for module in modules]

    assert look_up() == keys
    assert fastest(look_up) < 0.1


def test_lists_name_modules_and_endings() -> None:
    rule = TargetRule.of(("q_proj", "lm_head"))
    assert rule.matches("model.q_proj")
    assert rule.matches("lm_head")
    assert not rule.matches("model.xq_proj")
    assert rule.unused({"model.q_proj": None}) == ["lm_head"]
