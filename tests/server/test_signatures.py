"""What a namespace demands of its versions, at every door and on every database."""

import contextlib
import itertools
import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from adapter_folder import manifest_of, push, write_adapter
from rankloom.errors import ConflictError, ForbiddenError, NotFoundError, RefError, SignatureError
from rankloom.ref import AdapterName, VersionRef
from rankloom.registry.http import HttpRegistry
from rankloom.registry.protocol import Registry
from rankloom.registry.wire import AliasRequest, NamespaceRules, TokenRequest, Version
from rankloom.signing import openssf
from rankloom.signing.bundle import contents_of
from rankloom.signing.signers import IdentitySigner, KeySigner, Signer, SigningKey, read_signer
from rankloom_server import db, signed
from rankloom_server.access import Actor
from rankloom_server.models import ADAPTER, VERSION, VERSION_SIGNATURE
from rankloom_server.service import Service, open_embedded
from rankloom_server.settings import Settings
from rankloom_server.signatures import MOST, MOST_BY_ONE
from servers import served
from signing_keys import key_pair
from statements import counted

NAME = AdapterName("acme", "zh")


@pytest.fixture
def private(tmp_path: Path) -> Path:
    return key_pair(tmp_path, "ours")[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


def demand(registry: Registry, *publics: Path) -> None:
    signers = tuple(read_signer(public) for public in publics)
    registry.set_namespace_rules("acme", NamespaceRules(required_signers=signers))


def bundle_of(folder: Path, private: Path) -> str:
    return openssf.sign(contents_of(manifest_of(folder)), "zh", SigningKey(private))


def doors(registry: Registry, version: Version) -> list[Callable[[], object]]:
    """Return all the ways to use a version."""
    return [
        lambda: registry.resolve(VersionRef(NAME, alias="latest")),
        lambda: registry.resolve(VersionRef(NAME, number=1)),
        lambda: registry.resolve(VersionRef(NAME, digest=version.digest)),
        lambda: registry.blob_url(NAME, version.digest, "adapter_config.json"),
        lambda: registry.set_alias(NAME, "prod", AliasRequest(digest=version.digest)),
    ]


def test_an_unsigned_version_is_refused_at_every_door_until_it_is_signed(
    registry: Registry, folder: Path, private: Path
) -> None:
    demand(registry, private.with_suffix(".pub"))
    version = push(registry, folder, "acme/zh")
    for door in doors(registry, version):
        with pytest.raises(SignatureError, match=r"SEC007 .* is not signed") as caught:
            door()
        assert "loractl sign" in caught.value.hint
    assert registry.signatures(VersionRef(NAME, number=1)).signatures == ()
    assert registry.show(NAME).versions == (version,)
    made = registry.add_signature(NAME, version.digest, bundle_of(folder, private))
    for door in doors(registry, version):
        door()
    found = registry.signatures(VersionRef(NAME, alias="prod"))
    assert (found.version.digest, found.signatures) == (version.digest, (made,))
    lines = registry.audit_log(namespace="acme").items
    (line,) = [line for line in lines if line.action == "version.sign"]
    assert line.detail == {"version": version.digest, "signature": made.digest}


def test_who_is_no_longer_trusted_has_signed_nothing(
    registry: Registry, folder: Path, private: Path, tmp_path: Path
) -> None:
    version = push(registry, folder, "acme/zh")
    elsewhere = push(registry, folder, "other/zh")
    registry.add_signature(NAME, version.digest, bundle_of(folder, private))
    demand(registry, private.with_suffix(".pub"))
    registry.resolve(VersionRef(NAME, number=1))
    other, public = key_pair(tmp_path, "other")
    demand(registry, public)
    with pytest.raises(SignatureError, match="signed by none"):
        registry.resolve(VersionRef(NAME, number=1))
    with pytest.raises(SignatureError, match="by nobody whom its namespace names"):
        registry.add_signature(NAME, version.digest, bundle_of(folder, private))
    registry.add_signature(NAME, version.digest, bundle_of(folder, other))
    registry.resolve(VersionRef(NAME, number=1))
    # Another namespace demands nothing.
    assert registry.resolve(VersionRef(elsewhere.adapter, number=1)).version == elsewhere


def test_signatures_are_attached_to_what_is_there(
    registry: Registry, folder: Path, private: Path
) -> None:
    bundle, absent = bundle_of(folder, private), "sha256:" + "0" * 64
    with pytest.raises(NotFoundError):
        registry.add_signature(NAME, absent, bundle)
    push(registry, folder, "acme/zh")
    with pytest.raises(NotFoundError):
        registry.add_signature(NAME, absent, bundle)
    with pytest.raises(NotFoundError):
        registry.signatures(VersionRef(NAME, alias="prod"))


def test_nobody_takes_the_place_of_a_signature(folder: Path, private: Path, tmp_path: Path) -> None:
    service = open_embedded(tmp_path / "data")
    version = push(service, folder, "acme/zh")
    strangers = [service.for_actor(Actor(f"token-{index}")) for index in range(5)]
    bundle = bundle_of(folder, key_pair(tmp_path, "strange")[0])
    for indent in (None, 1, 2):  # the same in other words
        spaced = json.dumps(json.loads(bundle), indent=indent, sort_keys=indent == 2)
        strangers[0].add_signature(NAME, version.digest, spaced)
    ref = VersionRef(NAME, number=1)
    assert len(service.signatures(ref).signatures) == 1
    with pytest.raises(SignatureError, match="SEC007"):
        strangers[0].add_signature(NAME, version.digest, f'{bundle[:-1]}, "more": {"9" * 5000}}}')
    count = itertools.count()

    def attach(who: Service) -> None:
        more = json.loads(bundle) | {"more": next(count)}
        who.add_signature(NAME, version.digest, json.dumps(more))

    for _ in range(MOST_BY_ONE - 1):
        attach(strangers[0])
    with pytest.raises(ConflictError, match="token-0 has attached 4 signatures"):
        attach(strangers[0])
    for who in strangers[1:4] * MOST_BY_ONE:
        attach(who)
    with pytest.raises(ConflictError, match=f"has {MOST} signatures"):
        attach(strangers[4])
    demand(service, private.with_suffix(".pub"))
    service.add_signature(NAME, version.digest, bundle_of(folder, private))
    assert service.resolve(ref).version == version
    service.close()


@pytest.mark.parametrize(
    ("signer", "said"),
    [
        (
            KeySigner(pem="-----BEGIN PUBLIC KEY-----\nbm9uZQ==\n-----END PUBLIC KEY-----\n"),
            "cannot verify",
        ),
        (IdentitySigner(identity="a@b.example", issuer="https://b.example", trust="{}"), "trust"),
    ],
)
def test_a_rule_that_nobody_could_meet_is_not_set(
    tmp_path: Path, signer: Signer, said: str
) -> None:
    service = open_embedded(tmp_path / "data")
    with pytest.raises(RefError, match=said):
        service.set_namespace_rules("acme", NamespaceRules(required_signers=(signer,)))
    assert service.namespace_rules("acme").required_signers == ()
    service.close()


def test_nobody_waits_for_a_lock_while_a_signature_is_verified(
    folder: Path, private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = open_embedded(tmp_path / "data")
    version = push(service, folder, "acme/zh")
    demand(service, private.with_suffix(".pub"))
    verified: list[str] = []

    def verify(bundle: str, contents: dict[str, str], signer: Signer, what: str) -> None:
        writer = sqlite3.connect(tmp_path / "data/registry.db", timeout=0)
        writer.execute("BEGIN IMMEDIATE")  # refused at once where another holds the lock
        writer.close()
        verified.append(bundle)
        openssf.verify(bundle, contents, signer, what)

    monkeypatch.setattr(signed, "openssf", SimpleNamespace(verify=verify))
    made = service.add_signature(NAME, version.digest, bundle_of(folder, private))
    assert verified == [made.bundle]
    signed._verify.cache_clear()
    service.set_alias(NAME, "prod", AliasRequest(digest=version.digest))
    assert verified == [made.bundle] * 2
    service.close()


def test_a_verifier_that_failed_once_is_asked_again(
    folder: Path, private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = open_embedded(tmp_path / "data")
    version = push(service, folder, "acme/zh")
    service.add_signature(NAME, version.digest, bundle_of(folder, private))
    demand(service, private.with_suffix(".pub"))

    def fail(*_: object) -> None:
        message = "SEC007 the verifier has no memory left"
        raise SignatureError(message, hint="try again")

    with monkeypatch.context() as patch:
        patch.setattr(signed.openssf, "verify", fail)
        with pytest.raises(SignatureError, match="signed by none"):
            service.resolve(VersionRef(NAME, number=1))
    assert service.resolve(VersionRef(NAME, number=1)).version == version
    service.close()


def test_only_who_may_push_attaches_signatures(folder: Path, private: Path, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        url, token = stack.enter_context(served(Settings(data_dir=tmp_path / "data")))
        admin = stack.enter_context(contextlib.closing(HttpRegistry(url, token)))
        version = push(admin, folder, "acme/zh")
        token = admin.create_token(TokenRequest(name="reader", grants=("read",))).token
        reader = stack.enter_context(contextlib.closing(HttpRegistry(url, token)))
        with pytest.raises(ForbiddenError):
            reader.add_signature(NAME, version.digest, bundle_of(folder, private))
        assert reader.signatures(VersionRef(NAME, number=1)).signatures == ()


@pytest.mark.parametrize(
    "change", [sa.update(VERSION_SIGNATURE).values(creator="x"), sa.delete(VERSION_SIGNATURE)]
)
def test_a_signature_is_never_changed(engine: sa.Engine, change: sa.UpdateBase) -> None:
    now, digest = datetime.now(UTC), "sha256:" + "0" * 64
    rows: dict[sa.Table, dict[str, object]] = {
        ADAPTER: {"id": 1, "namespace": "n", "name": "a", "card": ""},
        VERSION: {"id": 1, "adapter_id": 1, "number": 1, "digest": digest, "manifest": "{}"}
        | {"facts": {}},
        VERSION_SIGNATURE: {"version_id": 1, "digest": digest, "bundle": "{}", "creator": "c"},
    }
    with db.write(engine) as connection:
        for table, row in rows.items():
            connection.execute(sa.insert(table).values(created_at=now, **row))
    with pytest.raises(DBAPIError, match="append-only"), db.write(engine) as connection:
        connection.execute(change)


def test_a_namespace_without_demands_costs_no_statement_more(
    folder: Path, private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = open_embedded(tmp_path / "data")
    version = push(service, folder, "acme/zh")
    ref = VersionRef(NAME, number=1)
    with counted(service.engine) as plain:
        service.resolve(ref)
    service.add_signature(NAME, version.digest, bundle_of(folder, private))
    demand(service, private.with_suffix(".pub"))
    service.resolve(ref)
    # What was verified once is not verified again.
    monkeypatch.setattr(signed.openssf, "verify", None)
    with counted(service.engine) as demanded:
        service.resolve(ref)
    assert len(demanded) == len(plain) + 1
    service.close()
