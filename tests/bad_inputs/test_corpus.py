"""The corpus is whole: each of its numbers has a row, or says why it cannot occur."""

from __future__ import annotations

from collections import Counter

from bad_inputs.corpus import ALL, NUMBERS


def test_every_number_has_a_row() -> None:
    assert {row.number for row in ALL} == set(NUMBERS)


def test_every_row_has_a_name_of_its_own() -> None:
    assert not [name for name, count in Counter(row.id for row in ALL).items() if count > 1]
