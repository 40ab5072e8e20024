"""Every bad input of the corpus gets its stated outcome, quickly and in little memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bad_inputs.corpus import FILES
from bad_inputs.limits import check_bounds

if TYPE_CHECKING:
    from pathlib import Path

    from bad_inputs.bounded import Ended, Runner
    from bad_inputs.row import Row


@pytest.mark.parametrize("row", FILES, ids=lambda row: row.id)
def test_a_row_gets_its_outcome(row: Row, runner: Runner, tmp_path: Path) -> None:
    row.make(tmp_path)
    ended = runner.run(tmp_path, row.command)
    assert ended.code == row.code, (ended.code, ended.out[-3000:], ended.err)
    assert row.says in ended.out + ended.err
    assert _found(row, ended), ended.out + ended.err
    if row.then:
        row.then(tmp_path)
    check_bounds(ended)


def _found(row: Row, ended: Ended) -> bool:
    """Say whether the outcome names the rule, with its severity where it has one."""
    if row.command[0] != "validate":
        return row.rule in ended.out + ended.err
    report = json.loads(ended.out)["adapters"][0]
    found = {(one["rule"], one["severity"]) for one in report["findings"]}
    if not row.rule:
        return report["ok"] is True
    return (row.rule, row.severity) in found or any(row.rule in str(e) for e in report["engines"])
