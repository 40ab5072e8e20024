"""What counts as a template that never ends, told from its text alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from folders import adapter
from rankloom.validate import validate

if TYPE_CHECKING:
    from pathlib import Path

ENDLESS = {
    "a loop over a range within another": (
        "{% for i in range(n) %}{%- for j in range(n) -%}x{% endfor %}{% endfor %}",
        "loops over a range within a loop over a range",
    ),
    "a range within, behind a harmless loop": (
        "{% for i in range(9) %}{% for m in messages %}{% endfor %}"
        "{% for k in range(9) %}{% endfor %}{% endfor %}",
        "loops over a range within",
    ),
    "ranges of many times the messages": (
        "{% for i in range(99999 * (messages|length)) %}{% for j in range(i) %}{% endfor %}"
        "{% for k in range(m|length * 9) %}{% endfor %}{% endfor %}",
        "loops over a range within",
    ),
    "ranges shortened by the index of another": (
        "{% set n=99999 %}{% for i in range(n) %}{% for j in range(n - loop.index) %}x"
        "{% endfor %}{% endfor %}",
        "loops over a range within",
    ),
    "ranges as long as a text of the template": (
        "{% set x='a'|center(99999) %}{% for i in range(x|length) %}{% for j in range(x|length) %}"
        "x{% endfor %}{% endfor %}",
        "loops over a range within",
    ),
    "the index of a range that is no input": (
        "{% for i in range(99999) %}{% for j in range(loop.index0) %}x{% endfor %}{% endfor %}",
        "loops over a range within",
    ),
    "messages that are a text of the template": (
        "{%- set a, messages = 1, 'a'|center(99999) %}{% for i in range(messages|length) %}"
        "{% for j in range(messages|length) %}x{% endfor %}{% endfor %}",
        "loops over a range within",
    ),
    "tools that are an argument": (
        "{% macro f(tools) %}{% for i in range(tools|length) %}{% for j in range(tools|length) %}x"
        "{% endfor %}{% endfor %}{% endmacro %}{{ f('a'|center(99999)) }}",
        "loops over a range within",
    ),
    "messages that are an element": (
        "{% for messages in ['a'|center(99999)] %}{% for i in range(messages|length) %}"
        "{% for j in range(loop.length) %}x{% endfor %}{% endfor %}{% endfor %}",
        "loops over a range within",
    ),
    "a large number": ("{{ 'a' * 1000000 }}", "counts far: \"'' * 1000000\""),
    "a large number in parts": ("{{ 'a' * 10_000_000 }}", "counts far"),
    "a large number with an exponent": ("{% for i in range(1e9|int) %}{% endfor %}", "counts far"),
    "a power": ("{{ 'a' * 9 ** 9 }}", "counts far"),
    "a text that fills the memory": ("x" * ((1 << 18) + 1), "has 262145 characters"),
}

SOUND = {
    "messages in turn": "{% for m in messages %}{{ m.role }}{% endfor %}",
    "one range in a loop over messages": (
        "{% for m in messages %}{% for i in range(m.n) %}{% endfor %}{% endfor %}"
    ),
    "ranges as long as the messages": (
        "{% for i in range(messages | length) %}{% for j in range(loop.index0 - 1, -1, -1) %}"
        "{% for k in range(loop.index0 + 1, messages|length) %}{% endfor %}{% endfor %}{% endfor %}"
    ),
    "ranges up to where the messages are": (
        "{% for m in messages %}{%- for j in range(loop.index0 - 1, -1, -1) -%}"
        "{% for k in range( 1, messages | count ) %}{% endfor %}{% endfor %}{% endfor %}"
    ),
    "ranges one behind the other": (
        "{% for i in range(9) %}a{% endfor %}{% for i in range(9) %}b{% endfor %}"
    ),
    "large numbers in texts": "{{ 'call 0800 1234567, 2 ** 3, 1e9' }}",
    "large numbers outside of tags": "Founded 20240101, 2**3. {{ x }}",
    "a quote in a text": r"{{ 'it\'s 1234567' }}",
    "digits of a name": "{{ layer1234567 }}",
    "a date": "{{ strftime_now('%d %b %Y') }}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_that_never_ends_is_found(name: str, tmp_path: Path) -> None:
    text, said = ENDLESS[name]
    (folder := adapter(tmp_path / "a")).joinpath("chat_template.jinja").write_text(text)
    (found,) = [found for found in validate(folder).findings if found.rule == "SEC006"]
    assert said in found.message
    assert found.where == "chat_template.jinja"


@pytest.mark.parametrize("name", SOUND)
def test_a_template_that_ends_passes(name: str, tmp_path: Path) -> None:
    (folder := adapter(tmp_path / "a")).joinpath("chat_template.jinja").write_text(SOUND[name])
    report = validate(folder)
    assert report.findings == ()
    assert "SEC006" in report.checked


def test_templates_of_a_tokenizer_are_read_by_name(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    several = [
        {"name": "default", "template": "{{ a }}"},
        {"name": "rag", "template": "{{ 9**9 }}"},
    ]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    (found,) = validate(folder).findings
    assert found.rule == "SEC006"
    assert found.message.startswith("tokenizer_config.json rag counts far")
