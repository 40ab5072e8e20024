"""Ranges of semantic versions, beside the table of npm's documentation."""

import pytest

from rankloom import semantic

# range: (least version that it holds, one just above it), as https://docs.npmjs.com says.
RANGES = {
    "^1.2.3": ("1.2.3", "2.0.0"),
    "^1.2": ("1.2.0", "2.0.0"),
    "^1": ("1.0.0", "2.0.0"),
    "^0.2.3": ("0.2.3", "0.3.0"),
    "^0.0.3": ("0.0.3", "0.0.4"),
    "^0.0": ("0.0.0", "0.1.0"),
    "^0": ("0.0.0", "1.0.0"),
    "~1.2.3": ("1.2.3", "1.3.0"),
    "~1.2": ("1.2.0", "1.3.0"),
    "~1": ("1.0.0", "2.0.0"),
    "~0.2.3": ("0.2.3", "0.3.0"),
}


@pytest.mark.parametrize("wanted", RANGES)
def test_a_range_begins_and_ends_where_npm_says(wanted: str) -> None:
    least, above = RANGES[wanted]
    assert semantic.newest(wanted, [least, above]) == least
    assert semantic.newest(wanted, [f"{least}-rc.1", f"{above}-rc.1", above]) is None


def test_versions_are_compared_as_numbers() -> None:
    assert semantic.newest("^1", ["1.9.0", "1.10.0", "1.2.0"]) == "1.10.0"
