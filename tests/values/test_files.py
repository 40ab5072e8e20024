import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankloom import files
from rankloom.errors import ConflictError, IntegrityError

DATA = b"some bytes" * 1000
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_verified_bytes_get_their_name(tmp_path: Path) -> None:
    target = tmp_path / "a/b"
    files.write_verified([DATA[:7], DATA[7:]], target, digest=DIGEST, size=len(DATA))
    assert target.read_bytes() == DATA
    assert everything_below(tmp_path) == ["a", "a/b"]


@pytest.mark.parametrize(
    "sent",
    [DATA[:-1], DATA + b"x", b"", DATA[:-1] + b"x"],
    ids=["truncated", "longer", "empty", "one byte changed"],
)
def test_other_bytes_are_refused_and_leave_nothing(tmp_path: Path, sent: bytes) -> None:
    with pytest.raises(IntegrityError, match="REG002"):
        files.write_verified([sent], tmp_path / "b", digest=DIGEST, size=len(DATA))
    assert everything_below(tmp_path) == []


def test_an_endless_stream_is_cut_at_the_promised_size(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        for count in range(10_000):
            assert count < 20, "read on although more than promised had come"
            yield DATA

    with pytest.raises(IntegrityError):
        files.write_verified(endless(), tmp_path / "b", digest=DIGEST, size=len(DATA))
    assert everything_below(tmp_path) == []


def test_a_broken_source_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield DATA[:100]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        files.write_verified(broken(), tmp_path / "b", digest=DIGEST, size=len(DATA))
    assert everything_below(tmp_path) == []


def test_an_atomic_write_keeps_the_mode(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "secret", b"1", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_an_output_folder_appears_only_when_it_is_full(tmp_path: Path) -> None:
    target = tmp_path / "deep/out"
    with files.output_folder(target) as filling:
        (filling / "a").write_text("1")
        assert not target.exists()
    assert everything_below(tmp_path / "deep") == ["out", "out/a"]


def test_a_failed_output_leaves_nothing(tmp_path: Path) -> None:
    def fill_and_fail() -> None:
        with files.output_folder(tmp_path / "out") as filling:
            (filling / "a").write_text("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fill_and_fail()
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "full folder", "link"])
def test_an_output_that_exists_is_refused(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("1")
    elif kind == "link":
        target.symlink_to(tmp_path / "nowhere")
    else:
        target.mkdir()
        (target / "precious").write_text("1")
    before = everything_below(tmp_path)
    with pytest.raises(ConflictError, match="REG006"), files.output_folder(target):
        pytest.fail("the block must not run")
    assert everything_below(tmp_path) == before


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    with files.output_folder(tmp_path) as filling:
        (filling / "a").write_text("1")
    assert everything_below(tmp_path) == ["a"]
