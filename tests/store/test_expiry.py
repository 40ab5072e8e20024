"""Pulls that last longer than the URLs they began with, on stores whose URLs live one second."""

import os
import time
from pathlib import Path

import pytest

from rankloom import digest as digests
from rankloom.errors import RegistryError
from rankloom.registry import transfer
from rankloom.registry.partial import BLOCK, Partial
from rankloom_server.store.interface import Store

BLOB = os.urandom(8 * BLOCK)
DIGEST = digests.of_bytes(BLOB)


@pytest.fixture
def slow(brief: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Ranges of one block, of which the first four take longer than a URL lives."""
    brief.put(DIGEST, len(BLOB), [BLOB])
    monkeypatch.setattr(transfer, "SPAN", BLOCK)
    write = Partial.write

    def write_slowly(self: Partial, offset: int, data: memoryview) -> None:
        write(self, offset, data)
        if offset < 4 * BLOCK:
            time.sleep(2.2)  # a second, and the rest of the one in which it began

    monkeypatch.setattr(Partial, "write", write_slowly)
    return brief


def test_an_expired_url_is_asked_for_anew_once_for_all_ranges(slow: Store, tmp_path: Path) -> None:
    asked: list[str] = []

    def ask() -> str:
        asked.append(slow.presign_get(DIGEST))
        return asked[-1]

    target = tmp_path / "blob"
    transfer.get(ask(), target, digest=DIGEST, size=len(BLOB), renew=ask)
    assert target.read_bytes() == BLOB
    assert len(asked) == 2


def test_where_nobody_gives_another_the_next_pull_goes_on(slow: Store, tmp_path: Path) -> None:
    target = tmp_path / "blob"
    with pytest.raises(RegistryError, match="answered 40"):
        transfer.get(slow.presign_get(DIGEST), target, digest=DIGEST, size=len(BLOB))
    assert not target.exists()
    counted: list[int] = []
    tally = transfer.Tally(len(BLOB), lambda done, _: counted.append(done))
    transfer.get(slow.presign_get(DIGEST), target, digest=DIGEST, size=len(BLOB), tally=tally)
    assert target.read_bytes() == BLOB
    assert counted[0] == 4 * BLOCK  # these were here already
