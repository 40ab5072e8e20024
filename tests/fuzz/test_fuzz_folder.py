"""The short form of ``python tests/fuzz/folder_target.py``: damaged folders are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fuzz import folder_seeds, folder_target
from rankloom.base import reader as bases
from rankloom.validate import validate

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 2000


def test_every_damaged_folder_is_judged_by_our_own_rules(tmp_path: Path) -> None:
    """Warnings of numpy and others fail it too, as in all tests."""
    fuzzer = folder_target.Fuzzer(tmp_path)
    fuzzer.run(COUNT)
    # Most damage is found, and not all of it is damage: both outcomes are looked into.
    assert fuzzer.outcomes["refused"] > COUNT // 2
    assert fuzzer.outcomes["passed"] > COUNT // 50


@pytest.mark.parametrize("kind", folder_seeds.SEEDS)
def test_what_is_damaged_was_good(kind: str, tmp_path: Path) -> None:
    base = bases.read(folder_seeds.write_base(tmp_path / "base"))
    assert validate(folder_seeds.write(tmp_path / kind, kind), base).findings == ()


@pytest.mark.parametrize("broken", ["raises", "passes all"])
def test_the_fuzzer_can_fail(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object, **__: object) -> object:
        raise ValueError

    def passes(folder: Path, *_: object, **__: object) -> object:
        return validate(folder_seeds.write(folder.with_name("good"), "lora"))

    monkeypatch.setattr(folder_target, "validate", raises if broken == "raises" else passes)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever comes first
        folder_target.Fuzzer(tmp_path).run(100)
    assert caught.value.__notes__ == ["folder 0"]
