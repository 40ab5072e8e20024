"""The corpus is whole: each of its numbers has a row, or says why it cannot occur."""

from __future__ import annotations

from collections import Counter

from bad_inputs.corpus import ALL, COMING, NUMBERS
from rankloom.rules import RULES


def test_every_number_has_a_row() -> None:
    assert {row.number for row in ALL} == set(NUMBERS) - COMING


def test_every_row_has_a_name_of_its_own() -> None:
    assert not [name for name, count in Counter(row.id for row in ALL).items() if count > 1]


def test_what_rankloom_has_by_now_has_a_row() -> None:
    """Signatures (row 80) come with their rule."""
    assert ("SEC007" in RULES) == (80 not in COMING)
