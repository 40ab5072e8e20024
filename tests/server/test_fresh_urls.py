"""URLs whose time is over while a push sends whole blobs: it asks for others and goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapter_folder import manifest_of, push, write_adapter
from rankloom.errors import RegistryError
from rankloom.ref import AdapterName
from rankloom.registry.http import HttpRegistry
from rankloom.registry.pieces import Rounds
from rankloom.registry.push import send
from rankloom.registry.wire import PutTarget, Upload, UploadRequest
from rankloom_server.settings import Settings
from servers import served

NAME = AdapterName("default", "zh-lang")


def spoilt(target: PutTarget) -> PutTarget:
    """Return a target whose signature the store refuses, as one whose time is over."""
    last = "1" if target.url.endswith("0") else "0"
    return target.model_copy(update={"url": target.url[:-1] + last})


class Late(HttpRegistry):
    """A registry whose answers come so late, at first, that the URLs in them are not good."""

    answers, late = 0, 0

    def open_upload(self, adapter: AdapterName, request: UploadRequest) -> Upload:
        upload = super().open_upload(adapter, request)
        self.answers += 1
        if self.answers > self.late:
            return upload
        return upload.model_copy(update={"missing": tuple(map(spoilt, upload.missing))})


@pytest.fixture
def registry(settings: Settings) -> Iterator[Late]:
    with served(settings) as (url, token):
        made = Late(url, token)
        yield made
        made.close()


def test_a_push_asks_once_for_fresh_urls(registry: Late, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter")
    request = UploadRequest(manifest=manifest_of(folder))
    total = sum(entry.size for entry in request.manifest.files)
    registry.late = 1
    counted: list[tuple[int, int]] = []
    upload = send(registry, folder, NAME, request, lambda *count: counted.append(count))
    assert registry.answers == 2
    assert counted[-1] == max(counted) == (total, total)
    assert registry.publish(upload).number == 1


def test_a_store_that_refuses_is_believed(registry: Late, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter")
    registry.late = 9
    with pytest.raises(RegistryError, match=r"the store refused .*: 403"):
        push(registry, folder)
    assert registry.answers == 2
    registry.late = 0
    assert push(registry, folder).number == 1


def test_rounds_that_advance_are_not_counted() -> None:
    rounds = Rounds(1)
    assert [rounds.go_on(missing) for missing in (5, 4, 4, 3, 3, 3)] == [True] * 5 + [False]
