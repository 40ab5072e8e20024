"""Who may do what: scopes by namespace, public namespaces, tokens made by tokens, the audit log."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from adapter_folder import base_record, manifest_of, push, send, write_adapter
from rankloom.errors import (
    AuthError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RankloomError,
    RefError,
)
from rankloom.ref import AdapterName, VersionRef
from rankloom.registry.http import HttpRegistry
from rankloom.registry.protocol import Registry
from rankloom.registry.wire import AliasRequest, NamespaceRules, TokenRequest, UploadRequest
from rankloom_server import audit, auth, db, namespaces
from rankloom_server.access import LOCAL, Actor, Grant
from rankloom_server.models import AUDIT, TOKEN
from rankloom_server.settings import Settings
from servers import served

ACME, OTHER = AdapterName("acme", "a"), AdapterName("other", "a")


class World:
    """A served registry, and clients of it with tokens of all kinds."""

    def __init__(self, url: str, token: str, stack: contextlib.ExitStack) -> None:
        self.url, self.stack = url, stack
        self.admin = self.client(token)

    def client(self, token: str | None) -> HttpRegistry:
        made = HttpRegistry(self.url, token)
        self.stack.callback(made.close)
        return made

    def holder(self, *grants: str, name: str = "t", by: Registry | None = None) -> HttpRegistry:
        request = TokenRequest(name=name, grants=grants)
        return self.client((by or self.admin).create_token(request).token)


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(*stack.enter_context(served(settings)), stack)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


@contextlib.contextmanager
def refused(kind: type[RankloomError]) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    assert type(caught.value) is kind
    assert caught.value.hint


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["read", "push:acme", "admin:a.b", "push:acme/zh"])
def test_a_grant_is_read_as_it_is_written(text: str) -> None:
    assert str(Grant.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "write", "read:", "read:*", "READ", ":x", "read "),
        *("read:a/b", "admin:a/b", "push:a/", "push:/b", "push:a/*", "push:*/b", "push:a/b/c"),
    ],
)
def test_what_is_no_grant_is_refused(text: str) -> None:
    with pytest.raises(RefError):
        Grant.parse(text)


def test_no_scope_includes_another() -> None:
    actor = Actor("t", frozenset([Grant.parse("admin"), Grant.parse("push:acme")]))
    assert [actor.may(scope, "acme") for scope in ("read", "push", "admin")] == [False, True, True]
    assert [actor.may(scope, "x") for scope in ("read", "push", "admin")] == [False, False, True]
    assert actor.readable() == frozenset()
    assert LOCAL.readable() is None


# --- namespaces --------------------------------------------------------------------------------


def test_a_token_opens_the_namespaces_that_it_names_and_no_other(
    world: World, folder: Path
) -> None:
    acme = world.holder("read:acme", "push:acme")
    version = push(acme, folder, "acme/a")
    push(world.admin, folder, "other/a")
    assert acme.resolve(VersionRef(ACME, alias="latest")).version == version
    assert [item.namespace for item in acme.list_adapters().items] == ["acme"]
    assert acme.list_adapters(namespace="other").items == ()
    elsewhere = [
        lambda: acme.show(OTHER),
        lambda: acme.show(AdapterName("nowhere", "a")),  # as if it existed
        lambda: acme.resolve(VersionRef(OTHER, number=1)),
        lambda: acme.blob_url(OTHER, version.digest, "adapter_config.json"),
        lambda: acme.open_upload(OTHER, UploadRequest(manifest=manifest_of(folder))),
        lambda: acme.set_alias(OTHER, "x", AliasRequest(digest=version.digest)),
        lambda: acme.delete_alias(OTHER, "x", version.digest),
        lambda: acme.yank(ACME, version.digest, "no admin"),
        lambda: acme.namespace_rules("acme"),
        lambda: acme.protect("acme", "prod", protected=True),
        lambda: acme.protect("acme", "prod", protected=False),
        acme.audit_log,
        acme.list_tokens,
    ]
    for call in elsewhere:
        with refused(ForbiddenError):
            call()


def test_an_upload_of_another_namespace_cannot_be_published(world: World, folder: Path) -> None:
    upload = world.admin.open_upload(OTHER, UploadRequest(manifest=manifest_of(folder)))
    send(folder, upload)
    with refused(NotFoundError):  # as if it did not exist
        world.holder("push:acme", "read").publish(upload.id)
    assert world.admin.publish(upload.id).number == 1


def test_anonymous_reads_only_where_the_namespace_says_so(world: World, folder: Path) -> None:
    for name in ("acme/a", "other/a"):
        version = push(world.admin, folder, name)
    nobody, somebody = world.client(None), world.holder("read:other")
    for call in (nobody.list_adapters, nobody.list_bases, lambda: nobody.show(ACME)):
        with refused(AuthError):
            call()
    world.admin.set_namespace_rules("acme", NamespaceRules(anonymous_read=True))
    assert [item.namespace for item in nobody.list_adapters().items] == ["acme"]
    assert [item.namespace for item in somebody.list_adapters().items] == ["acme", "other"]
    assert nobody.resolve(VersionRef(ACME, alias="latest")).version.digest == version.digest
    assert nobody.blob_url(ACME, version.digest, "adapter_config.json")
    assert nobody.list_bases() == ()
    writes = [
        lambda: nobody.show(OTHER),
        lambda: nobody.open_upload(ACME, UploadRequest(manifest=manifest_of(folder))),
        lambda: nobody.set_alias(ACME, "x", AliasRequest(digest=version.digest)),
        lambda: nobody.yank(ACME, version.digest, "vandalism"),
        lambda: nobody.add_base(base_record()),
    ]
    for call in writes:
        with refused(AuthError):
            call()
    world.admin.set_namespace_rules("acme", NamespaceRules(anonymous_read=False))
    with refused(AuthError):
        nobody.show(ACME)


@pytest.mark.parametrize("namespace", ["*", "a%00b", "%2e%2e", "A", "con"])
def test_a_namespace_that_cannot_be_opens_nothing(world: World, namespace: str) -> None:
    nobody = world.client(None)
    with refused(AuthError):
        nobody.namespace_rules(namespace)
    with refused(RefError):
        world.admin.namespace_rules(namespace)


# --- tokens ------------------------------------------------------------------------------------


def test_who_administers_a_namespace_makes_tokens_for_it_only(world: World) -> None:
    owner = world.holder("admin:acme", name="owner")
    world.holder("push:acme", name="ci", by=owner)
    for grants in (["push"], ["read:other"], ["read:acme", "admin"]):
        with refused(ForbiddenError):
            owner.create_token(TokenRequest(name="more", grants=tuple(grants)))
    assert {token.name for token in owner.list_tokens().items} == {"ci", "owner"}
    with refused(NotFoundError):
        owner.revoke_token("admin")  # as if it did not exist
    owner.revoke_token("ci")
    with refused(NotFoundError):
        owner.revoke_token("ci")
    with refused(ConflictError):
        owner.create_token(TokenRequest(name="ci", grants=("read:acme",)))


def test_a_revoked_token_ends_at_once_and_an_expired_one_by_itself(world: World) -> None:
    ci = world.holder("read", name="ci")
    assert ci.list_adapters().items == ()
    world.admin.revoke_token("ci")
    with refused(AuthError):
        ci.list_adapters()
    end = datetime.now(UTC) + timedelta(minutes=1)
    world.admin.create_token(TokenRequest(name="brief", grants=("read",), expires_at=end))
    records = {token.name: token for token in world.admin.list_tokens().items}
    assert records["brief"].expires_at == end
    assert records["ci"].revoked_at is not None
    for past in (datetime.now(UTC) - timedelta(seconds=1), datetime.min.replace(tzinfo=UTC)):
        with refused(RefError):
            world.admin.create_token(TokenRequest(name="x", grants=("read",), expires_at=past))


def test_the_last_use_is_noted_at_most_once_a_minute(engine: sa.Engine) -> None:
    token = auth.create(engine, "t", [Grant.parse("read")])

    def used() -> datetime | None:
        return auth.list_all(engine)[0].last_used_at

    assert used() is None
    auth.identify(engine, token)
    first = used()
    assert first is not None
    auth.identify(engine, token)
    assert used() == first
    with db.write(engine) as connection:
        connection.execute(sa.update(TOKEN).values(last_used_at=first - timedelta(minutes=2)))
    auth.identify(engine, token)
    again = used()
    assert again is not None
    assert again >= first


# --- the audit log -----------------------------------------------------------------------------


def test_every_change_is_in_the_log(world: World, folder: Path) -> None:
    ci = world.holder("read:acme", "push:acme", name="ci")
    version = push(ci, folder, "acme/a")
    ci.set_alias(ACME, "prod", AliasRequest(digest=version.digest))
    with refused(ConflictError):
        ci.set_alias(ACME, "prod", AliasRequest(digest=version.digest))
    ci.delete_alias(ACME, "prod", version.digest)
    world.admin.yank(ACME, version.digest, "bad data")
    ci.add_base(base_record())
    ci.add_base(base_record())
    world.admin.set_namespace_rules("acme", NamespaceRules(anonymous_read=True))
    world.admin.revoke_token("ci")
    lines = world.admin.audit_log().items
    assert [(line.action, line.actor) for line in reversed(lines)] == [
        ("token.create", "local"),
        ("token.create", "admin"),
        ("version.publish", "ci"),
        ("alias.move", "ci"),
        ("alias.delete", "ci"),
        ("version.yank", "admin"),
        ("base.add", "ci"),
        ("namespace.rules", "admin"),
        ("token.revoke", "admin"),
    ]
    assert all(line.request_id for line in lines[:-1])
    assert lines[3].detail == {"version": version.digest, "reason": "bad data"}
    inside = world.admin.audit_log(namespace="acme").items
    assert len(inside) == 5
    assert world.admin.audit_log(namespace="acme", before=inside[1].id).items == inside[2:]
    assert world.admin.audit_log(limit=2).items == lines[:2]
    assert not any("rl_" in line.model_dump_json() for line in lines)


@pytest.mark.parametrize("change", [sa.update(AUDIT).values(actor="nobody"), sa.delete(AUDIT)])
def test_the_log_only_grows(engine: sa.Engine, change: sa.UpdateBase) -> None:
    with db.write(engine) as connection:
        audit.record(connection, LOCAL, "test.test", subject="x")
    with pytest.raises(DBAPIError, match="append-only"), db.write(engine) as connection:
        connection.execute(change)
    with db.read(engine) as connection:
        assert [line.subject for line in audit.read(connection).items] == ["x"]


def test_a_change_that_fails_is_not_in_the_log(engine: sa.Engine) -> None:
    def change() -> None:
        with db.write(engine) as connection:
            audit.record(connection, LOCAL, "test.test", subject="x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change()
    with db.read(engine) as connection:
        assert audit.read(connection).items == ()


def test_of_two_who_protect_aliases_at_once_none_is_lost(engine: sa.Engine) -> None:
    def protect(alias: str) -> None:
        with db.write(engine) as connection:
            namespaces.protect(connection, LOCAL, "acme", alias, protected=True)

    protect("first")
    with ThreadPoolExecutor(1) as pool:
        with db.write(engine) as connection:
            namespaces.protect(connection, LOCAL, "acme", "prod", protected=True)
            other = pool.submit(protect, "stable")
            time.sleep(0.3)  # it has come to where it waits
            assert not other.done()
        other.result(20)
    with db.write(engine) as connection:
        found = namespaces.get(connection, "acme").protected_aliases
        assert found == ("first", "prod", "stable")
        for alias in ("first", "prod", "prod", "unknown"):
            rules = namespaces.protect(connection, LOCAL, "acme", alias, protected=False)
        assert rules == NamespaceRules(protected_aliases=("stable",))
        lines = audit.read(connection, namespace="acme").items
    assert [line.action for line in lines] == [*["alias.unprotect"] * 2, *["alias.protect"] * 3]


def test_a_rule_that_is_not_named_stays_as_it_is(world: World) -> None:
    change = world.admin.set_namespace_rules
    assert change("acme", NamespaceRules(keep_versions=3)).keep_days == 30
    rules = change("acme", NamespaceRules(keep_days=5, protected_aliases=("prod",)))
    assert (rules.keep_versions, rules.keep_days, rules.protected_aliases) == (3, 5, ("prod",))
    # Also what is named with its default is named.
    rules = change("acme", NamespaceRules(keep_versions=None, protected_aliases=()))
    assert rules == NamespaceRules(keep_days=5) == world.admin.namespace_rules("acme")
    details = [line.detail for line in world.admin.audit_log(namespace="acme").items]
    assert details[-1] == {"keep_versions": 3}
    for alias in ("a", "b"):
        world.admin.protect("acme", alias, protected=True)
    assert world.admin.protect("acme", "a", protected=False).protected_aliases == ("b",)
    with refused(RefError):
        world.admin.protect("acme", "A", protected=True)


def test_of_a_namespace_that_is_not_there_no_alias_is_protected(world: World, folder: Path) -> None:
    push(world.admin, folder, "other/a")
    assert world.admin.protect("other", "prod", protected=False) == NamespaceRules()
    for _ in range(2):  # to be asked for it makes none
        with pytest.raises(NotFoundError, match="no namespace nowhere"):
            world.admin.protect("nowhere", "prod", protected=False)
    acme, said = world.holder("admin:acme"), set()
    for name in ("other", "nowhere"):
        with pytest.raises(ForbiddenError) as caught:
            acme.protect(name, "prod", protected=False)
        said.add(caught.value.message.replace(name, "NAME"))
    assert len(said) == 1, "who may not know of it is told the same"
