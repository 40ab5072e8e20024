import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rankloom.errors import RefError
from rankloom.recipe import source

TEXT = """\
merge_method: ties
adapters:
  - adapter: zh-lang   # a comment
    parameters:
      weight: [0.2, 0.6]
  - {adapter: qa, on: true, none: null}
"""


def test_values_are_those_of_yaml_and_know_their_lines() -> None:
    read = source.parse(TEXT)
    assert read.value["adapters"][0] == {
        "adapter": "zh-lang",
        "parameters": {"weight": [0.2, 0.6]},
    }
    assert read.lines["adapters", 0, "parameters", "weight"] == 5
    error = read.error(("adapters", 1, "no such key"), "unknown key", "remove it")
    assert "line 6: unknown key" in error.message
    assert error.hint == "remove it"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\na: 2", 2),
        ("a: &x [1]\nb: *x", 2),
        ("ok: 1\na: !!python/object:os.system {}", 2),
        ("a: 1\nb: [", 2),
        ("a: 1\n\tb: 2", 2),
        ("? [1]\n: 2", 1),
        ("a: 1\nb: 2026-02-31", 2),
    ],
)
def test_what_is_no_plain_yaml_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(RefError, match=f"line {line}"):
        source.parse(text)


def test_deep_and_long_documents_are_refused_quickly() -> None:
    with pytest.raises(RefError):
        source.parse("[" * 100_000)
    with pytest.raises(RefError, match="longer"):
        source.parse(" " * (source.MAX_BYTES + 1))


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-99, 99)
    | st.floats(-9, 9)
    | st.text("abc: #", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain)
def test_any_plain_value_reads_as_the_library_reads_it(value: object) -> None:
    text = yaml.safe_dump(value)
    assert source.parse(text).value == yaml.safe_load(text)
