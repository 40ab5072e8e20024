"""What a disk refuses while a checkpoint is written is said in words, and nothing is left."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING, NoReturn

import pytest

from lowrank_cases import Case, part, write_base
from rankloom.apply.transfer import LocalSink
from rankloom.composition import Composition, compose
from rankloom.errors import ConflictError, DiskError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:BASE001:rankloom.errors.RankloomWarning")


@pytest.fixture
def composition(tmp_path: Path) -> Composition:
    write_base(tmp_path / "base", shards=2)
    Case().write(tmp_path / "adapter")
    return compose([part(tmp_path / "adapter")])


def full(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (os, "posix_fallocate"),
        (os, "pwrite"),
        (os, "copy_file_range"),
        (os, "posix_fadvise"),
        (os, "fsync"),
        (shutil, "copyfileobj"),
    ],
)
def test_a_full_disk_is_said_in_words_and_nothing_is_left(
    tmp_path: Path,
    composition: Composition,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
) -> None:
    monkeypatch.setattr(module, name, full)
    with pytest.raises(DiskError, match=r"cannot be written: No space left on device"):
        composition.apply_to(tmp_path / "base", tmp_path / "out", workers=1)
    assert not list(tmp_path.glob("*out*"))


def test_a_file_in_the_place_of_a_folder_is_said_in_words(
    tmp_path: Path, composition: Composition
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"file/out cannot be written: Not a directory"):
        composition.apply_to(tmp_path / "base", tmp_path / "file" / "out")


def test_a_target_that_was_filled_meanwhile_stays(tmp_path: Path, composition: Composition) -> None:
    def fill(*_: int) -> None:
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "mine").touch()

    with pytest.raises(ConflictError, match="REG006"):
        composition.apply_to(tmp_path / "base", tmp_path / "out", progress=fill)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_file_that_cannot_be_closed_hides_no_cause_and_keeps_no_other_open(
    tmp_path: Path, composition: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[LocalSink] = []
    closed: list[LocalSink] = []
    create, close, finish = LocalSink.__init__, LocalSink.close, LocalSink.finish

    def created(sink: LocalSink, path: Path, size: int) -> None:
        create(sink, path, size)
        made.append(sink)

    def refuse(sink: LocalSink) -> None:
        close(sink)
        closed.append(sink)
        message = "not closed"
        raise DiskError(message)

    def fail(sink: LocalSink) -> str:
        if len(made) < 2:
            return finish(sink)
        message = "the cause"
        raise DiskError(message)

    monkeypatch.setattr(LocalSink, "__init__", created)
    monkeypatch.setattr(LocalSink, "close", refuse)
    monkeypatch.setattr(LocalSink, "finish", fail)
    with pytest.raises(DiskError, match="the cause") as found:
        composition.apply_to(tmp_path / "base", tmp_path / "out", workers=1)
    assert len(made) == 2
    assert set(closed) == set(made)
    assert found.value.__notes__ == ["and what it left could not be removed: not closed"]
