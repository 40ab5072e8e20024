"""The short way to resolve answers what the ordinary way answers, and nothing that it refuses."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from adapter_folder import base_record, fingerprint, push, write_adapter
from rankloom.ref import AdapterName, VersionRef
from rankloom.registry.http import HttpRegistry
from rankloom.registry.wire import (
    AliasRequest,
    NamespaceRules,
    Remarks,
    ResolvedVersion,
    TokenRequest,
    Version,
)
from rankloom.signing.signers import read_signer
from rankloom_server import auth, catalogue, db, quick_reader
from rankloom_server.models import TOKEN, VERSION
from rankloom_server.settings import Settings
from servers import served
from signing_keys import key_pair

NAME = AdapterName("default", "zh-lang")
PATH = "/api/v1/adapters/default/zh-lang/resolve"


class World:
    """A server with an adapter of two versions, and ways to ask it."""

    def __init__(self, url: str, token: str, engine: sa.Engine, tmp_path: Path) -> None:
        self.url, self.token, self.engine = url, token, engine
        self.registry = HttpRegistry(url, token)
        self.registry.add_base(base_record())
        folders = [write_adapter(tmp_path / f"a{seed}", seed=seed) for seed in range(2)]
        kept = {"base": "tiny", "made_for": fingerprint()}
        push(self.registry, folders[0], "other/zh-lang")
        self.versions = [push(self.registry, folder, **kept) for folder in folders]  # type: ignore[arg-type]

    def get(self, query: str = "", *, token: str | None = None, path: str = PATH) -> httpx.Response:
        """Ask with the administrator's token, with another one, or (empty) without."""
        token = self.token if token is None else token
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.get(f"{self.url}{path}{query}", headers=headers)

    def new_token(self, name: str, grant: str, **more: datetime) -> str:
        """Make a token whose use was noted a moment ago, so that the short way takes it."""
        token: str = self.registry.create_token(
            TokenRequest(name=name, grants=(grant,), **more)
        ).token
        auth.identify(self.engine, token)
        return token


@pytest.fixture
def world(settings: Settings, tmp_path: Path) -> Iterator[World]:
    url = settings.database_url or db.sqlite_url(settings.data_dir.absolute() / "registry.db")
    with served(settings) as (address, token):
        engine = db.open_engine(url)
        made = World(address, token, engine, tmp_path)
        yield made
        made.registry.close()
        engine.dispose()


@contextlib.contextmanager
def only_the_short_way() -> Iterator[None]:
    """Let the ordinary route fail, so that an answer came by the short one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(catalogue, "resolve")
        yield


def asked(world: World, **named: str | int) -> ResolvedVersion:
    """Ask by the short way, and compare with the ordinary one."""
    query = "".join(f"?{how}={value}" for how, value in named.items())
    with only_the_short_way():
        response = world.get(query)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    found = ResolvedVersion.model_validate_json(response.content)
    ref = VersionRef(NAME, **(named or {"alias": "latest"}))  # type: ignore[arg-type]
    with db.read(world.engine) as connection:
        expected = catalogue.resolve(connection, ref)
    assert found == expected
    # Every field is there, not only those that a default would replace.
    assert response.json()["version"].keys() == Version.model_fields.keys()
    assert response.json().keys() == ResolvedVersion.model_fields.keys()
    return found


def test_every_way_to_name_a_version(world: World) -> None:
    first, second = world.versions
    for alias in ("prod", "canary"):
        world.registry.set_alias(NAME, alias, AliasRequest(digest=first.digest))
    said = Remarks(labels={"task": 'q"ä'}, metrics={"f1": 0.1}, deprecated="use \\ another\n")
    world.registry.remark(NAME, first.digest, said)
    assert asked(world).version.digest == second.digest
    assert asked(world, alias="latest").version.digest == second.digest
    assert asked(world, alias="prod").version.aliases == ("canary", "prod")
    assert asked(world, number=1).version.labels == {"task": 'q"ä'}
    assert asked(world, digest=first.digest).version.base == "tiny"
    with only_the_short_way():  # in the form in which our own client asks
        for ref in (VersionRef(NAME, alias="prod"), VersionRef(NAME, digest=first.digest)):
            assert world.registry.resolve(ref).version.digest == first.digest
    world.registry.yank(NAME, second.digest, "bad")
    assert asked(world).version.digest == first.digest
    assert asked(world, number=2).version.yanked == "bad"


def test_what_is_no_hit_is_answered_by_the_ordinary_route(world: World) -> None:
    assert world.get(path=PATH.replace("zh", "qa")).status_code == 404
    for query in ("?number=3", "?alias=none", f"?digest=sha256:{'0' * 64}"):
        assert world.get(query).json()["code"] == "not-found", query
    for query in ("?number=0", "?alias=A", "?digest=x", "?number=1&alias=latest"):
        assert world.get(query).status_code in {400, 422}, query
    assert world.get("?what=1").status_code == 200
    with only_the_short_way():
        assert world.get("?what=1").status_code == 500, "the ordinary route is not asked"


@pytest.mark.parametrize(
    "name", ["a%00", "%00", "a%0A", "A", "%C3%A4", "%ED%A0%80", "%F0%9F%A6%99", "..", "a" * 200]
)
def test_what_is_no_name_is_refused_in_words(world: World, name: str) -> None:
    for pair in (f"{name}/b", f"a/{name}"):
        answered = world.get(path=f"/api/v1/adapters/{pair}/resolve")
        assert answered.status_code in {404, 422}, answered.text
        assert answered.json()["code"] in {"invalid-request", "not-found"}


def test_a_value_that_the_database_refuses_is_no_hit(settings: Settings) -> None:
    settings.data_dir.mkdir()
    url = settings.database_url or db.sqlite_url(settings.data_dir / "registry.db")

    async def asked() -> object:
        reader = quick_reader.open_reader(db.open_engine(url))
        try:
            return await reader.one("SELECT no_such_column", {})
        finally:
            await reader.close()

    assert asyncio.run(asked()) is None


def test_what_was_purged_is_not_given_out(world: World) -> None:
    with db.write(world.engine) as connection:
        first = VERSION.c.digest == world.versions[0].digest
        connection.execute(sa.update(VERSION).where(first).values(purged_at=datetime.now(UTC)))
    assert "purged" in world.get("?number=1").json()["detail"]
    assert asked(world).version.number == 2


def test_a_name_that_two_namespaces_have_is_the_ordinary_routes_to_judge(
    world: World, tmp_path: Path
) -> None:
    push(world.registry, write_adapter(tmp_path / "b", seed=3), "default/only")
    with only_the_short_way():
        path = PATH.replace("zh-lang", "only")
        assert world.get("?alias=latest&bare=true", path=path).status_code == 200
    assert "REG005" in world.get("?alias=latest&bare=true").json()["detail"]


def test_who_may_not_read_is_refused(world: World) -> None:
    with only_the_short_way():
        assert world.get(token=world.new_token("reader", "read:default")).status_code == 200
        assert world.get(token=world.new_token("all", "read")).status_code == 200
    assert world.get(token="").status_code == 401
    assert world.get(token="rl_unknown").status_code == 401
    for name, grant in (("pusher", "push:default"), ("stranger", "read:other")):
        assert world.get(token=world.new_token(name, grant)).status_code == 403
    ended = world.new_token("ended", "read")
    world.registry.revoke_token("ended")
    assert world.get(token=ended).status_code == 401
    soon = datetime.now(UTC) + timedelta(seconds=1)
    over = world.new_token("over", "read", expires_at=soon)
    time.sleep(1.1)
    assert world.get(token=over).status_code == 401
    world.registry.set_namespace_rules("default", NamespaceRules(anonymous_read=True))
    with only_the_short_way():
        assert world.get(token="").status_code == 200


def test_the_use_of_a_token_is_noted(world: World) -> None:
    token = world.new_token("reader", "read")
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    with db.write(world.engine) as connection:
        connection.execute(sa.update(TOKEN).values(last_used_at=long_ago))
    with only_the_short_way():
        assert world.get(token=token).status_code == 500, "the use was not noted"
    with only_the_short_way():  # the ordinary route noted it before it failed
        assert world.get(token=token).status_code == 200


def test_requests_are_counted_on_the_short_way_too(settings: Settings, tmp_path: Path) -> None:
    limited = settings.model_copy(update={"requests_per_minute": 40})
    with contextlib.ExitStack() as stack:
        url, token = stack.enter_context(served(limited))
        registry = stack.enter_context(contextlib.closing(HttpRegistry(url, token)))
        push(registry, write_adapter(tmp_path / "a"))
        client = stack.enter_context(httpx.Client(headers={"authorization": f"Bearer {token}"}))
        with only_the_short_way():
            answers = [client.get(f"{url}{PATH}") for _ in range(2)]
            figures = client.get(f"{url}/metrics").text
            answers += [client.get(f"{url}{PATH}") for _ in range(40)]
    assert [answer.status_code for answer in answers[:2]] == [200, 200]
    left = [int(answer.headers["ratelimit"].split("r=")[1].split(";")[0]) for answer in answers[:2]]
    assert left[0] - left[1] == 1
    assert answers[-1].status_code == 429
    assert answers[-1].json()["code"] == "rate-limited"
    assert "retry-after" in answers[-1].headers
    route = "/api/v1/adapters/{namespace}/{name}/resolve"
    assert f'rankloom_requests_total{{method="GET",route="{route}",status="200"}} 2.0' in figures


def test_a_version_that_must_be_signed_is_the_ordinary_routes_to_judge(
    world: World, tmp_path: Path
) -> None:
    signer = read_signer(key_pair(tmp_path, "ours")[1])
    world.registry.set_namespace_rules("default", NamespaceRules(required_signers=(signer,)))
    assert "SEC007" in world.get().json()["detail"]
    world.registry.set_namespace_rules("default", NamespaceRules(required_signers=()))
    with only_the_short_way():
        assert world.get().status_code == 200
