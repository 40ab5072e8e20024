"""A registry that lies: what it cannot prove is refused, and nothing of it stays."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from adapter_folder import write_adapter
from rankloom.client import Client
from rankloom.errors import IntegrityError, OfflineError, RefError, RegistryError
from rankloom.ref import AdapterName
from rankloom.registry.http import HttpRegistry
from rankloom.registry.wire import (
    AliasRequest,
    MissingParts,
    NamespaceRules,
    PartsRequest,
    PartTarget,
    ResolvedVersion,
    Version,
)
from rankloom_server.routes import adapters, uploads
from rankloom_server.settings import Settings
from servers import served


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with (
        served(Settings(data_dir=tmp_path / "served")) as (url, token),
        Client(url, token) as made,
    ):
        yield made


@pytest.fixture
def versions(client: Client, tmp_path: Path, base: Path) -> list[Version]:
    folders = [write_adapter(tmp_path / f"a{seed}", seed=seed) for seed in range(2)]
    return [client.push(folder, "zh", base=base) for folder in folders]


def another(_found: ResolvedVersion, other: ResolvedVersion) -> ResolvedVersion:
    return other


def another_manifest(found: ResolvedVersion, other: ResolvedVersion) -> ResolvedVersion:
    return found.model_copy(update={"manifest": other.manifest})


@pytest.mark.parametrize("lie", [another, another_manifest])
def test_a_digest_is_not_another_version(
    client: Client,
    versions: list[Version],
    monkeypatch: pytest.MonkeyPatch,
    lie: Callable[[ResolvedVersion, ResolvedVersion], ResolvedVersion],
) -> None:
    asked = versions[0].pinned
    answer = lie(client.resolve(asked), client.resolve(versions[1].pinned))
    kept_as = versions[0].digest.replace(":", "-")
    place = next(client.cache.folder.glob(f"resolved/*/*/*/{kept_as}.json"))
    place.unlink()
    monkeypatch.setattr(HttpRegistry, "resolve", lambda *_: answer)
    for use in (client.resolve, client.pull, lambda name: client.compose([name], weights=[1.0])):
        with pytest.raises(IntegrityError, match="REG002"):
            use(asked)
    assert not place.exists()
    with Client(client.settings.url, offline=True) as away, pytest.raises(OfflineError):
        away.resolve(asked)


@pytest.fixture
def file_urls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of this machine, to which from now on every URL leads that a server gives out."""
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    for routes in (adapters, uploads):
        monkeypatch.setattr(routes, "absolute", lambda *_: mine.as_uri())
    return mine


def test_a_server_does_not_write_files_of_this_machine(
    client: Client, adapter: Path, base: Path, file_urls: Path
) -> None:
    with pytest.raises(RegistryError, match="no address of a store"):
        client.push(adapter, "zh", base=base)
    assert file_urls.read_bytes() == b"mine"


def test_a_server_does_not_read_files_of_this_machine(
    client: Client, versions: list[Version], file_urls: Path
) -> None:
    with pytest.raises(RegistryError, match="no address of a store"):
        client.pull(versions[0].pinned)
    entry = client.resolve(versions[0].pinned).manifest.files[0]
    with pytest.raises(RegistryError, match="no address of a store"):
        client.registry.blob_url(versions[0].adapter, versions[0].digest, entry.path)


@pytest.mark.parametrize("url", ["file:///mine", "FILE:/mine", " file:/mine", "http://[", "mine"])
def test_a_part_goes_nowhere_but_to_a_store(url: str) -> None:
    target = PartTarget(number=1, url=url)
    answer = httpx.Response(200, content=MissingParts(missing=(target,)).model_dump_json())
    transport = httpx.MockTransport(lambda _: answer)
    with (
        contextlib.closing(HttpRegistry("http://r", transport=transport)) as registry,
        pytest.raises(RegistryError, match="no address of a store"),
    ):
        registry.assemble("u", "sha256:" + "0" * 64, PartsRequest(parts=("sha256:" + "0" * 64,)))


@pytest.mark.parametrize("alias", ["prod#1", "prod?x=1", "../../../tokens/ci", "..", "", "Prod"])
def test_an_alias_is_a_name_and_no_path(
    client: Client, versions: list[Version], alias: str
) -> None:
    client.alias("zh@v1", "prod")
    with pytest.raises(RefError, match="not a valid alias"):
        client.alias("zh@v2", alias)
    assert client.resolve("zh:prod").version.number == 1


def test_what_goes_into_a_path_is_quoted() -> None:
    asked: list[str] = []

    def note(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path.decode().partition("?")[0])
        return httpx.Response(404)

    adapter, odd = AdapterName("a#", "b/../c"), "../x?#"
    path, quoted = "/api/v1/adapters/a%23/b%2F..%2Fc", "..%2Fx%3F%23"
    digest = "sha256:" + "0" * 64
    transport = httpx.MockTransport(note)
    with contextlib.closing(HttpRegistry("http://r", transport=transport)) as registry:
        for ask in (
            lambda: registry.set_alias(adapter, odd, AliasRequest(digest=digest)),
            lambda: registry.delete_alias(adapter, odd, digest),
            lambda: registry.namespace_rules(odd),
            lambda: registry.set_namespace_rules(odd, NamespaceRules()),
            lambda: registry.trusted_publishers(odd),
            lambda: registry.distrust(odd, 1),
            lambda: registry.audit_log(namespace=odd),
        ):
            with pytest.raises(RegistryError):
                ask()
    rest = ["rules", "rules", "publishers", "publishers/1", "audit"]
    aliases = [f"{path}/aliases/{quoted}"] * 2
    assert asked == [*aliases, *(f"/api/v1/namespaces/{quoted}/{end}" for end in rest)]
