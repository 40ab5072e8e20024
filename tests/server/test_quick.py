"""The short way to resolve answers what the ordinary way answers, and nothing that it refuses."""

import asyncio
import contextlib
import email
import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import h11
import httpx
import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

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
from rankloom_server import auth, catalogue, db, quick, quick_protocol, quick_reader
from rankloom_server.models import TOKEN, VERSION
from rankloom_server.request_log import request_id
from rankloom_server.settings import Settings
from servers import Postgres, served
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
def only_the_short_way(door: str = "connection") -> Iterator[None]:
    """Let the ordinary route fail and close the other door, so that an answer came by this one."""

    async def closed(*_: object) -> None:
        """Find nothing."""

    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(catalogue, "resolve")
        if door == "connection":
            patch.setattr(quick.QuickResolve, "_find", closed)
        else:
            patch.setattr(quick_protocol, "read", lambda _data: None)
        yield


def asked(world: World, **named: str | int) -> ResolvedVersion:
    """Ask by the short way, and compare with the ordinary one."""
    query = "".join(f"?{how}={value}" for how, value in named.items())
    with only_the_short_way():
        response = world.get(query)
    with only_the_short_way("asgi"):
        same = world.get(query)
    assert response.status_code == same.status_code == 200, response.text
    assert response.content == same.content
    ordinary = world.get("?what=1")
    assert set(response.headers) == set(same.headers) == set(ordinary.headers)
    assert response.headers["content-type"] == ordinary.headers["content-type"]
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


def test_what_is_no_hit_is_looked_up_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[quick.Asked] = []
    find = quick.Quick.find

    def counted(self: quick.Quick, asked: quick.Asked, then: Callable[..., None]) -> None:
        looked_up.append(asked)
        find(self, asked, then)

    monkeypatch.setattr(quick.Quick, "find", counted)
    headers = {"authorization": f"Bearer {world.token}"}
    with httpx.Client(headers=headers, base_url=world.url) as client:
        assert client.get(f"{PATH}?number=3").status_code == 404
        assert len(looked_up) == 1
        with only_the_short_way("asgi"):  # the mark is that of one request
            assert client.get(PATH).status_code == 200
    assert len(looked_up) == 2


@pytest.mark.parametrize(
    "name", ["a%00", "%00", "a%0A", "A", "%C3%A4", "%ED%A0%80", "%F0%9F%A6%99", "..", "a" * 200]
)
def test_what_is_no_name_is_refused_in_words(world: World, name: str) -> None:
    for pair in (f"{name}/b", f"a/{name}"):
        answered = world.get(path=f"/api/v1/adapters/{pair}/resolve")
        assert answered.status_code in {404, 422}, answered.text
        assert answered.json()["code"] in {"invalid-request", "not-found"}


def test_the_log_and_the_id_are_those_of_the_ordinary_way(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "rankloom_server")
    headers = {"authorization": f"Bearer {world.token}", "x-request-id": "mine"}
    for query in ("", "?what=1"):
        caplog.clear()
        answered = httpx.get(f"{world.url}{PATH}{query}", headers=headers)
        assert answered.headers["x-request-id"] == "mine"
        while not (lines := [one for one in caplog.records if "/resolve " in one.getMessage()]):
            time.sleep(0.01)  # it is written when the answer has been
        (record,) = lines
        told = {name: getattr(record, name) for name in ("path", "status", "request_id", "actor")}
        assert told == {"path": PATH, "status": 200, "request_id": "mine", "actor": "admin"}
        assert record.getMessage().startswith(f"GET {PATH} 200 ")


def test_ways_alternate_on_one_connection(world: World) -> None:
    """Requests that come whole, in pieces, in one piece and behind each other, in their order."""

    def request(query: str, more: bytes = b"") -> bytes:
        token = world.token.encode()
        line = f"GET {PATH}{query} HTTP/1.1\r\nHost: x\r\n".encode()
        return line + b"Authorization: Bearer %b\r\n%b\r\n" % (token, more)

    first, second = request("?number=1"), request("?number=2")
    pieces = [first, request("?number=3"), second[:40], second[40:], first + second]
    url = httpx.URL(world.url)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = line.makefile("rb")
        for piece in pieces:
            line.sendall(piece)
            time.sleep(0.005)  # mostly pieces of their own then; right in any case
        assert [_number(answers) for _ in range(5)] == [1, None, 2, 1, 2]
        # A body is no request, whatever it looks like.
        more = b"Content-Length: %d\r\nExpect: 100-continue\r\n" % len(first)
        line.sendall(request("?what=1", more))
        assert answers.readline() + answers.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.sendall(first)
        assert _number(answers) == 2
        line.sendall(first)
        assert _number(answers) == 1


@pytest.mark.services
def test_a_server_that_ends_answers_what_is_being_looked_up(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    waits = (
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND query LIKE 'SELECT CAST(%'"
    )
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2))
        holder, watcher = (stack.enter_context(psycopg.connect(url)) for _ in range(2))
        watcher.autocommit = True
        with served(Settings(data_dir=tmp_path / "data", database_url=url)) as (address, token):
            headers = {"authorization": f"Bearer {token}"}
            with contextlib.closing(HttpRegistry(address, token)) as registry:
                push(registry, write_adapter(tmp_path / "a"))
            holder.execute("LOCK TABLE alias")
            answer = pool.submit(httpx.get, f"{address}{PATH}", headers=headers, timeout=20)
            while not watcher.execute(waits).fetchone():
                time.sleep(0.01)
            pool.submit(lambda: (time.sleep(0.3), holder.rollback()))
        assert answer.result().status_code == 200


def _number(answers: BinaryIO) -> int | None:
    """Read one answer; return the number of its version."""
    status = int(answers.readline().split()[1])
    headers = email.message_from_bytes(b"".join(iter(answers.readline, b"\r\n")))
    body = json.loads(answers.read(int(headers["content-length"])))
    return body["version"]["number"] if status == 200 else None


_LINES = [
    *(b"Host: a", b"host:b", b"Authorization: Bearer rl_x", b"authorization:  Basic x "),
    *(
        b"Content-Length: 0",
        b"Content-Length: 3",
        b"content-length:",
        b"Transfer-Encoding: chunked",
    ),
    *(b"Connection: close", b"Connection: Keep-Alive", b"Connection: upgrade", b"Upgrade: x"),
    *(b"Expect: 100-continue", b"X-Request-Id: mine", b"X-Forwarded-For: 10.0.0.1", b" folded"),
    *(b"Host : c", b"Accept: */*\t", b": x", b"No-Colon", b"Empty:", b"Bad: \x00", b"High: \xe4"),
]
_QUERIES = ["", "?alias=prod", "?number=1&bare=true", "?x=1"]
_BEHIND = [b"", b"x", b"\r\n", b"GET / HTTP/1.1\r\n\r\n"]


def _request(query: str, version: str, lines: list[bytes]) -> bytes:
    return b"\r\n".join([f"GET {PATH}{query} HTTP/{version}".encode(), *lines, b"", b""])


def test_what_the_short_way_reads_is_what_a_parser_reads() -> None:
    kinds = itertools.product(_QUERIES, ["1.1", "1.0"], _LINES, [[], [b"Host: a"]], _BEHIND)
    for query, version, line, host, behind in kinds:
        _read_alike(_request(query, version, [*host, line]) + behind)


@given(
    lines=st.lists(st.sampled_from(_LINES), max_size=3),
    at=st.integers(0, 200),
    cut=st.integers(0, 2),
    inserted=st.sampled_from(
        [b"", b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b"a", b"%41", b":"]
    ),
)
def test_edited_requests_are_read_alike(
    lines: list[bytes], at: int, cut: int, inserted: bytes
) -> None:
    data = _request("?alias=prod", "1.1", [b"Host: a", *lines])
    _read_alike(data[:at] + inserted + data[at + cut :])


def _read_alike(data: bytes) -> None:
    """Compare what the short way reads, if it does, with what h11 does."""
    found = quick_protocol.read(data)
    if found is None:
        return
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(data)
    request, end = parser.next_event(), parser.next_event()
    assert isinstance(request, h11.Request)
    assert isinstance(end, h11.EndOfMessage)
    assert parser.next_event() is h11.NEED_DATA, "nothing is behind it"
    assert parser.their_state is h11.DONE, "the connection stays"
    assert parser.trailing_data == (b"", False)
    assert (request.method, request.http_version) == (b"GET", b"1.1")
    assert request.target.partition(b"?")[0] == found.path.encode()
    headers = dict(request.headers)
    assert len(headers) == len(request.headers.raw_items())
    assert headers.keys().isdisjoint({b"expect", b"upgrade"})
    token = headers.get(b"authorization")
    assert token == (found.asked.token and b"Bearer " + found.asked.token.encode())
    given = headers.get(b"x-request-id", b"").decode()
    assert found.request_id == given or request_id(given.encode()) != given


def test_the_plain_form_is_that_of_the_clients() -> None:
    lines = [
        "Host: a:1",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
        "User-Agent: x",
    ]
    more = ["Authorization: Bearer rl_x", "X-Forwarded-For: 10.0.0.1"]
    data = "\r\n".join([f"GET {PATH}?digest=sha256%3A{'0' * 64} HTTP/1.1", *lines, *more, "", ""])
    found = quick_protocol.read(data.encode())
    assert found is not None
    assert found.asked.token == "rl_x"
    assert found.asked.value == f"sha256:{'0' * 64}"
    # Without a token the address counts, and uvicorn knows whether a proxy may tell it.
    assert quick_protocol.read(data.replace(more[0] + "\r\n", "").encode()) is None
    assert quick_protocol.read(data.replace("gzip", "g" * 9000).encode()) is None


@pytest.mark.services
def test_answers_of_postgresql_go_to_those_who_asked(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_reader, "_PATIENCE_SECONDS", 60.0)
    slow, text = "SELECT pg_sleep(60), $1::text", "SELECT $1::text, NULL"
    sleeping = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    with psycopg.connect(postgres.url, autocommit=True) as other:

        async def run() -> None:
            reader = quick_reader.open_reader(db.open_engine(postgres.url))
            loop = asyncio.get_running_loop()

            def ask(text: str, value: str) -> asyncio.Future[quick_reader.Row | None]:
                found = loop.create_future()
                reader.one(text, [value], found.set_result)
                return found

            async def ask_many(times: int) -> list[quick_reader.Row | None]:
                return await asyncio.gather(*(ask(text, f"ä{turn}") for turn in range(times)))

            try:
                assert await ask_many(40) == [(f"ä{turn}", None) for turn in range(40)]
                # One that fails, or a connection that ends, leaves the others to the other way.
                broken, after = await asyncio.gather(ask("SELECT 1/length($1)", ""), ask(text, "b"))
                assert broken is None
                assert after in {None, ("b", None)}
                assert await ask_many(2) == [("ä0", None), ("ä1", None)]
                waiting = ask(slow, "")
                while not (process := other.execute(sleeping).fetchone()):
                    await asyncio.sleep(0.01)
                other.execute("SELECT pg_terminate_backend(%s)", process)
                assert await waiting is None
                assert await ask_many(2) == [("ä0", None), ("ä1", None)]
                await reader.close()
                monkeypatch.setattr(quick_reader, "_PATIENCE_SECONDS", 1.0)
                reader = quick_reader.open_reader(db.open_engine(postgres.url))
                assert await ask(slow, "") is None, "nobody waits for a minute"
                monkeypatch.setattr(quick_reader, "_PATIENCE_SECONDS", 60.0)
                async with asyncio.timeout(20):
                    while other.execute(sleeping).fetchone():
                        await asyncio.sleep(0.01)
                assert await ask_many(1) == [("ä0", None)]
            finally:
                await reader.close()

        asyncio.run(run())


@pytest.mark.services
def test_a_connection_that_ends_without_a_word_leaves_no_answers(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_reader, "_PATIENCE_SECONDS", 60.0)
    before, text = "SELECT $1::text, 'before'", "SELECT $1::text, 'after'"
    clients: list[asyncio.StreamWriter] = []
    told = asyncio.Event()

    async def run() -> None:
        heard = asyncio.Event()
        heard.set()

        async def carry(
            source: asyncio.StreamReader, to: asyncio.StreamWriter, *, answers: bool
        ) -> None:
            while data := await source.read(1 << 16):
                if answers:
                    await heard.wait()
                else:
                    told.set()
                to.write(data)

        async def between(source: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
            clients.append(client)
            answers, database = await asyncio.open_connection("127.0.0.1", postgres.port)
            ways = carry(source, database, answers=False), carry(answers, client, answers=True)
            try:
                await asyncio.gather(*ways)
            finally:
                client.close()
                database.close()

        server = await asyncio.start_server(between, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        url = postgres.url.replace(str(postgres.port), str(port))
        reader = quick_reader.open_reader(db.open_engine(url))

        def ask(text: str, value: str) -> asyncio.Future[quick_reader.Row | None]:
            found = asyncio.get_running_loop().create_future()
            reader.one(text, [value], found.set_result)
            return found

        async with asyncio.timeout(20):
            assert await ask(before, "a") == ("a", "before")
            heard.clear()
            told.clear()
            lost = ask(before, "lost")
            await told.wait()
            clients[-1].close()
            heard.set()
            await asyncio.sleep(0.1)
            given: list[quick_reader.Row | None] = [None]
            while None in given:  # it has not seen yet that the connection ended
                given = [*await asyncio.gather(ask(text, "b"), ask(text, "c"))]
            assert given == [("b", "after"), ("c", "after")]
            assert await lost is None
            # Were answers ever mixed up, none of them would be given out.
            assert await ask("SELECT 'another', $1::text", "d") is None
            assert await ask(text, "e") == ("e", "after")
            await reader.close()
        server.close()

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["silent", "refusing"])
def test_a_database_that_cannot_be_reached_is_left_to_the_ordinary_route(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quick_reader, "_REST_SECONDS", 60.0)
    if kind == "silent":
        monkeypatch.setattr(quick_reader, "_PATIENCE_SECONDS", 0.1)

    async def run(port: int) -> None:
        reader = quick_reader.open_reader(db.open_engine(f"postgresql://a@127.0.0.1:{port}/a"))
        found = asyncio.get_running_loop().create_future()
        reader.one("SELECT $1::text", ["a"], found.set_result)
        assert await found is None
        for _ in range(2):
            rows: list[quick_reader.Row | None] = []
            reader.one("SELECT $1::text", ["b"], rows.append)
            assert rows == [None], "it was left at once"
        await reader.close()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if kind == "refusing":
            silent.close()
        asyncio.run(run(port))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.services
def test_every_form_of_a_databases_url_is_understood(postgres: Postgres) -> None:
    url = sa.make_url(postgres.url)
    options = f"{url.query.get('options', '')} -c statement_timeout=7s".strip()
    more = {"options": options, "application_name": "my registry"}

    async def asked() -> object:
        reader = quick_reader.open_reader(
            db.open_engine(url.update_query_dict(more).render_as_string(hide_password=False))
        )
        found = asyncio.get_running_loop().create_future()
        text = "SELECT $1::text, current_setting('statement_timeout')"
        reader.one(f"{text}, current_setting('application_name')", ["a"], found.set_result)
        try:
            return await found
        finally:
            await reader.close()

    assert asyncio.run(asked()) == ("a", "7s", "my registry")


def test_a_value_that_the_database_refuses_is_no_hit(settings: Settings) -> None:
    settings.data_dir.mkdir()
    url = settings.database_url or db.sqlite_url(settings.data_dir / "registry.db")

    async def asked() -> object:
        reader = quick_reader.open_reader(db.open_engine(url))
        found = asyncio.get_running_loop().create_future()
        reader.one("SELECT no_such_column", [], found.set_result)
        try:
            return await found
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
    now = datetime.now(UTC)
    over = world.new_token("over", "read", expires_at=now + timedelta(hours=1))
    with db.write(world.engine) as connection:
        its = TOKEN.c.name == "over"
        connection.execute(sa.update(TOKEN).where(its).values(expires_at=now))
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
    assert "rankloom_requests_in_progress 1.0" in figures, "only the one that asks"


def test_a_version_that_must_be_signed_is_the_ordinary_routes_to_judge(
    world: World, tmp_path: Path
) -> None:
    signer = read_signer(key_pair(tmp_path, "ours")[1])
    world.registry.set_namespace_rules("default", NamespaceRules(required_signers=(signer,)))
    assert "SEC007" in world.get().json()["detail"]
    world.registry.set_namespace_rules("default", NamespaceRules(required_signers=()))
    with only_the_short_way():
        assert world.get().status_code == 200
