"""Offline: what the cache knows, said so where it may be old, and not one packet."""

import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapter_folder import write_adapter, write_base
from rankloom.client import Client
from rankloom.errors import NotFoundError, OfflineError, RankloomWarning
from rankloom.registry.cache.resolved import RecalledVersion
from rankloom.registry.wire import Version
from rankloom_server.settings import Settings
from servers import served

URL = "http://registry.invalid"


@pytest.fixture
def unplugged(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, touching the network in any way fails the test."""

    def touched(*_: object, **__: object) -> None:
        pytest.fail("the network was touched")

    def unplug() -> None:
        for name in ("connect", "connect_ex", "sendto"):
            monkeypatch.setattr(socket.socket, name, touched)
        monkeypatch.setattr(socket, "getaddrinfo", touched)

    return unplug


@dataclass(frozen=True)
class Known:
    """A registry that nobody answers for any more, and a version that was pulled from it."""

    url: str
    version: Version
    home: Path


@pytest.fixture(scope="module")
def served_once(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """``zh:prod`` and ``zh`` are pulled, ``qa`` is only pushed; then the server ends."""
    place = tmp_path_factory.mktemp("served")
    with (
        pytest.MonkeyPatch.context() as patch,
        served(Settings(data_dir=place / "data")) as (url, token),
        Client(url, token) as client,
    ):
        patch.setenv("RANKLOOM_HOME", str(place / "home"))
        base = write_base(place / "base")
        version = client.push(write_adapter(place / "zh"), "zh", base=base, alias="prod")
        client.push(write_adapter(place / "qa", seed=1), "qa", base=base)
        client.pull("zh:prod")
        client.pull("zh")
    return Known(url, version, place / "home")


@pytest.fixture
def known(served_once: Known, home: Path) -> Known:
    shutil.copytree(served_once.home, home)
    return served_once


def test_names_are_what_they_were_and_that_is_said_with_its_time(
    known: Known, adapter: Path, unplugged: Callable[[], None]
) -> None:
    unplugged()
    with Client(known.url, offline=True) as client:
        for name in ("zh", "zh:prod"):
            said = r"may name another version by now.* \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, "
            with pytest.warns(RankloomWarning, match=said + known.version.pinned):
                folder = client.pull(name)
        weights = "adapter_model.safetensors"
        assert (folder / weights).read_bytes() == (adapter / weights).read_bytes()
        with pytest.warns(RankloomWarning):
            found = client.resolve("zh")
    assert isinstance(found, RecalledVersion)
    assert (datetime.now(UTC) - found.as_of).total_seconds() < 300


def test_numbers_and_digests_never_change_so_nothing_is_said(
    known: Known, tmp_path: Path, unplugged: Callable[[], None]
) -> None:
    unplugged()
    with Client(known.url, offline=True) as client:
        for number, name in enumerate(
            ["zh@v1", known.version.pinned, f"other/name@{known.version.digest}"]
        ):
            assert client.pull(name, tmp_path / str(number)).is_dir()
    with Client(URL, offline=True) as client:  # the same bytes, whoever gave them
        assert client.resolve(known.version.pinned).version.digest == known.version.digest


def test_a_semantic_version_or_range_is_no_other(
    tmp_path: Path, base: Path, unplugged: Callable[[], None]
) -> None:
    with served(Settings(data_dir=tmp_path / "served")) as (url, token), Client(url, token) as near:
        for seed, semver in enumerate(["1.2.0", "2.0.0", "2.1.0"]):
            near.push(write_adapter(tmp_path / semver, seed=seed), "zh", base=base, semver=semver)
        for name in ("zh@~2.0", "zh@2.1.0", "zh@^1", "zh@1.2.0"):
            near.pull(name)
    unplugged()
    with Client(url, offline=True) as client:
        found = [client.resolve(f"zh@{known}") for known in ("1.2.0", "2.0.0", "2.1.0")]
        assert [one.version.semver for one in found] == ["1.2.0", "2.0.0", "2.1.0"]
        for name, semver in (("zh@^1", "1.2.0"), ("zh@~2.0", "2.0.0")):
            with pytest.warns(RankloomWarning, match="may name another version by now"):
                assert client.resolve(name).version.semver == semver
        for name in ("zh@^2", "zh@1.2.1", "zh", "zh:prod"):
            with pytest.raises(OfflineError, match="knows no zh"):
                client.resolve(name)


def test_what_is_kept_of_one_range_is_not_believed_of_another(
    known: Known, unplugged: Callable[[], None]
) -> None:
    unplugged()
    with Client(known.url, offline=True) as client:
        place = next(client.cache.folder.glob("resolved/*/*/zh/alias-prod.json"))
        place.rename(place.with_name("semver-^1.json"))
        with pytest.raises(OfflineError):
            client.resolve("zh@^1")


@pytest.mark.parametrize("name", ["qa", "zh:staging", "zh@v2", "zh@sha256:" + "0" * 64])
def test_what_the_cache_does_not_know_is_refused(
    known: Known, unplugged: Callable[[], None], name: str
) -> None:
    unplugged()
    with (
        Client(known.url, offline=True) as client,
        pytest.raises(OfflineError, match=name.partition("@")[0]) as refused,
    ):
        client.pull(name)
    assert refused.value.exit_code == 3
    assert "pull it once online" in refused.value.hint


def test_names_of_one_registry_are_not_those_of_another(
    known: Known, unplugged: Callable[[], None]
) -> None:
    unplugged()
    with Client(URL, offline=True) as client, pytest.raises(OfflineError, match=URL):
        client.pull("zh:prod")


def test_bytes_that_are_not_here_any_more_are_named(
    known: Known, unplugged: Callable[[], None]
) -> None:
    unplugged()
    with Client(known.url, offline=True) as client:
        for path in client.cache.folder.glob("blobs/*/*/*"):
            path.unlink()
        with pytest.raises(OfflineError, match=r"adapter_\w+\.\w+ of zh@sha256:.*not in the cache"):
            client.pull("zh@v1")


def test_damaged_bytes_are_not_handed_out_offline(
    known: Known, unplugged: Callable[[], None]
) -> None:
    unplugged()
    with Client(known.url, offline=True) as client:
        weights = max(client.cache.folder.glob("blobs/*/*/*"), key=lambda at: at.stat().st_size)
        weights.write_bytes(b"x" * weights.stat().st_size)
        with pytest.raises(OfflineError, match="adapter_model"):
            client.pull("zh@v1")


def test_whatever_else_needs_the_registry_is_refused(
    known: Known, adapter: Path, unplugged: Callable[[], None]
) -> None:
    unplugged()
    with Client(known.url, offline=True) as client:
        for ask in (
            lambda: client.push(adapter, "new"),
            lambda: client.show("zh"),
            lambda: list(client.list()),
            lambda: client.yank("zh@v1", "why"),
            lambda: client.validate(adapter, against="https://huggingface.co/acme/base"),
        ):
            with pytest.raises(OfflineError):
                ask()


def test_online_only_the_registry_is_believed(tmp_path: Path, base: Path) -> None:
    settings = Settings(data_dir=tmp_path / "served")
    with served(settings) as (url, token), Client(url, token) as client:
        client.push(write_adapter(tmp_path / "one"), "zh", base=base, alias="prod")
        one = client.pull("zh:prod")
        client.push(write_adapter(tmp_path / "two", seed=1), "zh", base=base, alias="prod")
        assert client.pull("zh:prod") != one
        digest = client.resolve("zh:prod").version.digest
        adapter_name = client.resolve("zh").version.adapter
        client.registry.delete_alias(adapter_name, "prod", digest)
        with pytest.raises(NotFoundError):
            client.pull("zh:prod")
        with Client(url, offline=True) as away:
            # The last that was said of it is that there is none.
            with pytest.raises(OfflineError):
                away.resolve("zh:prod")
            with pytest.warns(RankloomWarning, match="offline"):
                assert away.resolve("zh").version.number == 2


def test_compose_works_offline(known: Known, tmp_path: Path, unplugged: Callable[[], None]) -> None:
    unplugged()
    with Client(known.url, offline=True) as client:
        saved = client.compose(["zh@v1"], weights=[2.0]).save(tmp_path / "out")
    assert (saved / "adapter_model.safetensors").is_file()


def test_the_variable_says_it_too_and_the_embedded_registry_needs_no_network(
    adapter: Path, base: Path, monkeypatch: pytest.MonkeyPatch, unplugged: Callable[[], None]
) -> None:
    monkeypatch.setenv("RANKLOOM_OFFLINE", "1")
    unplugged()
    with Client() as client:
        client.push(adapter, "zh", base=base)
        assert client.pull("zh").is_dir()  # asked now: no warning of its age
    with Client(URL) as client, pytest.raises(OfflineError):
        client.pull("zh")
    with Client(URL, offline=False) as client:
        assert not client.settings.offline


def test_a_token_or_password_is_not_kept(known: Known) -> None:
    place = known.url.removeprefix("http://")
    with Client(f"http://someone:secret@{place}", offline=True) as client:
        assert client.resolve("zh@v1").version.number == 1
        kept = b"".join(path.read_bytes() for path in client.cache.folder.rglob("*.json"))
    assert b"secret" not in kept
    assert b"rl_" not in kept
