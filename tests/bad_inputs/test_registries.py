"""Rows of the corpus that a command meets in a registry, by both doors."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from bad_inputs import registries
from bad_inputs.door import lying, opened
from bad_inputs.limits import check_bounds

if TYPE_CHECKING:
    from pathlib import Path

    from bad_inputs.bounded import Runner
    from bad_inputs.registries import Served

CASES = [(row, door) for row in registries.ROWS for door in row.doors]


@pytest.mark.parametrize(("row", "kind"), CASES, ids=[f"{row.id}-{door}" for row, door in CASES])
def test_a_row_gets_its_outcome(row: Served, kind: str, runner: Runner, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(opened(kind, tmp_path))
        row.make(door, tmp_path)
        env = dict(door.env)
        if row.lie:
            env["RANKLOOM_URL"] = stack.enter_context(lying(env["RANKLOOM_URL"], row.lie))
        ended = runner.run(tmp_path, row.command, **env)
    assert ended.code == row.code, (ended.code, ended.out[-3000:], ended.err)
    assert row.rule in ended.out + ended.err
    assert row.says in ended.out + ended.err
    if row.code:
        registries.check(tmp_path)
    check_bounds(ended)
