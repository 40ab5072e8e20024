"""Rows of the corpus that somebody does by hand, by both doors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bad_inputs import hands
from bad_inputs.door import opened
from bad_inputs.limits import bounds

if TYPE_CHECKING:
    from pathlib import Path

    from bad_inputs.by_hand import Hand

CASES = [(row, door) for row in hands.ROWS for door in row.doors]


@pytest.mark.parametrize(("row", "kind"), CASES, ids=[f"{row.id}-{door}" for row, door in CASES])
def test_a_row_gets_its_answer(row: Hand, kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path) as door, bounds():
        answer = row.act(door, tmp_path)
    assert row.answer in answer
