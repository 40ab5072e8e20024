"""Trusted publishing against a local issuer: what mints, what does not, what is kept of it."""

import base64
import contextlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from adapter_folder import manifest_of, push, write_adapter
from oidc_issuer import AUDIENCE, LocalIssuer, running_issuer
from rankloom.errors import (
    AuthError,
    ForbiddenError,
    NotFoundError,
    RankloomError,
    RefError,
    RegistryError,
)
from rankloom.ref import AdapterName
from rankloom.registry.http import HttpRegistry
from rankloom.registry.wire import (
    AliasRequest,
    AuditEntry,
    NamespaceRules,
    Remarks,
    TrustRequest,
    UploadRequest,
)
from rankloom_server import auth, db, publishers
from rankloom_server.access import LOCAL
from rankloom_server.models import SHOWN_TOKEN, TOKEN
from rankloom_server.oidc import keys
from rankloom_server.oidc.issuer import Issuer, Job, read_job
from rankloom_server.settings import Settings
from servers import served

TRUST = TrustRequest(issuer="ci", repository="Acme/adapters", workflow="publish.yml")


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with running_issuer() as made:
        yield made


class World:
    """A registry that knows the issuer, as its administrator and as nobody."""

    def __init__(
        self, settings: Settings, issuer: LocalIssuer, stack: contextlib.ExitStack
    ) -> None:
        known = {"ci": Issuer(url=issuer.url, claims="github")}
        updated = {"oidc_issuers": known, "oidc_audience": AUDIENCE, "oidc_http": True}
        self.settings = settings.model_copy(update=updated)
        self.url, token = stack.enter_context(served(self.settings))
        self.stack, self.issuer = stack, issuer
        self.admin, self.nobody = self.client(token), self.client(None)

    def client(self, token: str | None) -> HttpRegistry:
        return self.stack.enter_context(contextlib.closing(HttpRegistry(self.url, token)))

    def mint(self, **changed: object) -> HttpRegistry:
        return self.client(self.nobody.mint_token(self.issuer.token(**changed)).token)

    def refusals(self) -> list[AuditEntry]:
        lines = self.admin.audit_log().items
        return [line for line in lines if line.action == "token.refuse"]


def opened(settings: Settings, issuer: LocalIssuer) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(settings, issuer, stack)


@pytest.fixture
def world(settings: Settings, issuer: LocalIssuer) -> Iterator[World]:
    """By both kinds of database and store."""
    yield from opened(settings, issuer)


@pytest.fixture
def small(tmp_path: Path, issuer: LocalIssuer) -> Iterator[World]:
    """On SQLite, where the database makes no difference."""
    yield from opened(Settings(data_dir=tmp_path / "data"), issuer)


def refused(kind: type[RankloomError], call: Callable[[], object], word: str | None = None) -> None:
    with pytest.raises(kind, match=word) as caught:
        call()
    assert type(caught.value) is kind
    assert caught.value.hint


def test_a_trusted_job_pushes_for_a_quarter_of_an_hour(world: World, tmp_path: Path) -> None:
    world.admin.trust("acme", TRUST)
    assert world.nobody.audience() == AUDIENCE
    minted = world.nobody.mint_token(world.issuer.token())
    left = minted.expires_at - datetime.now(UTC)
    assert timedelta(minutes=14) < left <= timedelta(minutes=15)
    job = world.client(minted.token)
    folder = write_adapter(tmp_path / "adapter")
    version = push(job, folder, "acme/zh")
    assert version.creator is not None
    assert version.creator.startswith("ci.ci.acme-adapters.")
    assert job.show(version.adapter).versions == (version,)
    for call in (
        lambda: push(job, folder, "other/zh"),
        lambda: job.yank(version.adapter, version.digest, "no admin"),
        lambda: job.set_namespace_rules("acme", NamespaceRules()),
        lambda: job.trust("acme", TRUST),
    ):
        refused(ForbiddenError, call)
    line = next(
        line
        for line in world.admin.audit_log(namespace="acme").items
        if line.action == "token.mint"
    )
    assert (line.actor, line.subject) == ("anonymous", version.creator)
    assert line.detail["repository"] == "acme/adapters"
    assert line.detail["sha"] == "a" * 40
    assert line.request_id


def other_key(issuer: LocalIssuer) -> str:
    """Signed by somebody else under the issuer's key id."""
    forger = RSAKey.generate_key(2048)
    return jwt.encode({"alg": "RS256", "kid": issuer.keys[0].kid}, issuer.claims(), forger)


def encoded(*parts: object) -> bytes:
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join(texts)


def none(issuer: LocalIssuer) -> str:
    """Not signed at all."""
    return encoded({"alg": "none"}, issuer.claims()).decode() + "."


def symmetric(issuer: LocalIssuer) -> str:
    """Signed with the public key's text as if it were a secret."""
    signed = encoded({"alg": "HS256", "kid": issuer.keys[0].kid}, issuer.claims())
    made = hmac.digest(issuer.keys[0].as_pem(private=False), signed, "sha256")
    return (signed + b"." + base64.urlsafe_b64encode(made).rstrip(b"=")).decode()


def tampered(issuer: LocalIssuer) -> str:
    """Another repository under a good signature."""
    head, _, tail = issuer.token().split(".")
    return f"{head}.{encoded(issuer.claims(repository='evil/adapters')).decode()}.{tail}"


def test_what_no_issuer_signed_for_us_and_now_mints_nothing(small: World) -> None:
    small.admin.trust("acme", TRUST)
    issuer, now = small.issuer, int(time.time())
    bad: list[tuple[str, str]] = [
        (other_key(issuer), "bad_signature"),
        (none(issuer), "lgorithm"),
        (symmetric(issuer), "lgorithm"),
        (tampered(issuer), "bad_signature"),
        (issuer.token(aud="another registry"), "aud"),
        (issuer.token(aud=None), "aud"),
        (issuer.token(exp=now - 60, iat=now - 300), "expired"),
        (issuer.token(exp=None), "exp"),
        (issuer.token(nbf=now + 300), "not yet valid"),
        (issuer.token(iat=now + 300), "future"),
        (issuer.token(exp=now + 10**6), "more than a day"),
        (issuer.token(jti=None), "jti"),
        (issuer.token(iss="https://evil.example"), "evil.example"),
        (issuer.token(iss=issuer.url + "/"), "none that this registry knows"),
        (issuer.token(iss=[issuer.url]), "none that this registry knows"),
        (issuer.token(repository=None), "names no job"),
        (issuer.token(repository=7), "names no job"),
        ("no token", "no JWT"),
        ("a.b.c", "no JWT"),
        ("e30.e30.e30", "no JWT"),
    ]
    for token, word in bad:
        refused(AuthError, lambda: small.nobody.mint_token(token), word)  # noqa: B023
    lines = small.refusals()
    assert len(lines) == len(bad)
    for (_, word), line in zip(bad, reversed(lines), strict=True):
        assert word in line.detail["reason"]
    assert not [token for token in small.admin.list_tokens().items if token.name != "admin"]


def test_tokens_of_odd_forms_are_refused_too(small: World) -> None:
    kid, signature = small.issuer.keys[0].kid, small.issuer.token().rpartition(".")[2]
    headers: list[object] = [
        *({"alg": "RS256", "kid": odd} for odd in (7, [1], {"a": 1}, "x" * 400)),
        *({"alg": odd, "kid": kid} for odd in ("ES256", 7, None)),
        {"alg": "RS256", "kid": kid, "b64": False, "crit": ["b64"]},
        {"alg": "RS256", "kid": kid, "crit": ["x"]},
        *([], "x", 7, None),
    ]
    claims: list[object] = [[], "x", 7, {}, {"iss": {}}, {"iss": None}]
    tokens = [encoded(head, small.issuer.claims()).decode() for head in headers]
    tokens += [encoded({"alg": "RS256", "kid": kid}, odd).decode() for odd in claims]
    tokens = [f"{token}.{signature}" for token in tokens] + ["é.é.é", "." * 1000, "\x00"]
    tokens += [small.issuer.token(exp=odd) for odd in (1e300, 10**400, True, "x")]
    tokens += [small.issuer.token(ref=7), small.issuer.token(jti=7), small.issuer.token(aud={})]
    for token in tokens:
        refused(AuthError, lambda: small.nobody.mint_token(token))  # noqa: B023


@pytest.mark.parametrize(
    "changed",
    [
        {"repository": "evil/adapters"},
        {"repository": "acme/adapters2"},
        {"job_workflow_ref": "acme/adapters/.github/workflows/test.yml@refs/heads/main"},
        {"job_workflow_ref": "evil/shared/.github/workflows/publish.yml@refs/heads/main"},
        {"job_workflow_ref": "publish.yml@acme/adapters/.github/workflows/"},
        {"environment": "staging"},
        {"environment": None},
    ],
)
def test_another_job_is_not_trusted(small: World, changed: dict[str, Any]) -> None:
    small.admin.trust("acme", TRUST.model_copy(update={"environment": "Prod"}))
    token = small.issuer.token(**changed)
    refused(ForbiddenError, lambda: small.nobody.mint_token(token), "no namespace trusts this job")
    assert len(small.refusals()) == 1
    small.mint()


def test_a_token_is_exchanged_once(world: World) -> None:
    world.admin.trust("acme", TRUST)
    token = world.issuer.token()
    world.nobody.mint_token(token)
    refused(ForbiddenError, lambda: world.nobody.mint_token(token), "exchanged already")
    # The same claims signed anew are the same token.
    again = world.issuer.token(jti=jwt.decode(token, world.issuer.keys[0]).claims["jti"])
    refused(ForbiddenError, lambda: world.nobody.mint_token(again), "exchanged already")


def test_an_exchange_is_remembered_longer_than_the_token_is_good(small: World) -> None:
    small.admin.trust("acme", TRUST)
    end = int(time.time()) + 60
    small.mint(exp=end)
    engine = db.open_engine(db.sqlite_url(small.settings.data_dir / "registry.db"))
    with db.read(engine) as connection:
        until = connection.execute(sa.select(SHOWN_TOKEN.c.expires_at)).scalar_one()
    assert until == datetime.fromtimestamp(end, UTC) + timedelta(hours=1)
    engine.dispose()


def test_every_namespace_that_trusts_a_job_is_opened_and_no_other(
    small: World, tmp_path: Path
) -> None:
    for namespace in ("one", "two"):
        small.admin.trust(namespace, TRUST)
    job, folder = small.mint(), write_adapter(tmp_path / "adapter")
    for namespace in ("one", "two"):
        push(job, folder, f"{namespace}/zh")
    refused(ForbiddenError, lambda: push(job, folder, "three/zh"))


def test_a_job_may_be_trusted_with_one_adapter(world: World, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter")
    other = push(world.admin, folder, "acme/qa")
    longest = "z" * 96
    for name in ("zh", longest):
        made = world.admin.trust("acme", TRUST.model_copy(update={"adapter": name}))
        assert (made.namespace, made.adapter) == ("acme", name)
    assert made in world.admin.trusted_publishers("acme").items
    assert world.admin.trusted_publishers("ac_e").items == ()
    job = world.mint()
    for name in ("zh", longest):
        version = push(job, folder, f"acme/{name}")
        job.set_alias(version.adapter, "prod", AliasRequest(digest=version.digest))
    open_elsewhere = world.admin.open_upload(
        AdapterName("acme", "new"), UploadRequest(manifest=manifest_of(folder))
    )
    elsewhere = AliasRequest(digest=other.digest)
    for call in (
        lambda: push(job, folder, "acme/zh2"),
        lambda: job.set_alias(other.adapter, "prod", elsewhere),
        lambda: job.remark(other.adapter, other.digest, Remarks(deprecated="x")),
    ):
        refused(ForbiddenError, call, r"may not push \S+ in namespace acme")
    refused(NotFoundError, lambda: job.publish(open_elsewhere.id), "no upload")
    world.admin.distrust("acme", made.id)
    refused(AuthError, lambda: push(job, folder, "acme/zh"))
    job = world.mint()
    refused(ForbiddenError, lambda: push(job, folder, f"acme/{longest}"))
    assert push(job, folder, "acme/zh").digest == version.digest
    grants = [
        line.detail["may"]
        for line in world.admin.audit_log(namespace="acme").items
        if line.action == "token.mint"
    ]
    assert grants == ["push:acme/zh", f"push:acme/zh push:acme/{longest}"]


def test_trust_is_listed_given_once_and_taken_back_with_its_tokens(world: World) -> None:
    made = world.admin.trust("acme", TRUST)
    assert world.admin.trust("acme", TRUST) == made
    assert made.repository == "acme/adapters"
    job = world.mint()
    (known,) = world.admin.trusted_publishers("acme").items
    assert known.repository_id == "4711"
    refused(NotFoundError, lambda: world.admin.distrust("other", made.id))
    world.admin.distrust("acme", made.id)
    refused(AuthError, job.list_adapters)
    refused(ForbiddenError, world.mint, "no namespace trusts")
    assert world.admin.trusted_publishers("acme").items == ()
    actions = [line.action for line in world.admin.audit_log(namespace="acme").items]
    assert actions == ["publisher.distrust", "token.mint", "publisher.trust"]
    refused(RefError, lambda: world.admin.trust("acme", TRUST.model_copy(update={"issuer": "x"})))


def test_a_token_that_is_made_while_trust_is_taken_back_ends_too(engine: sa.Engine) -> None:
    request = TRUST.model_copy(update={"issuer": "ci"})
    with db.write(engine) as connection:
        made = publishers.trust(connection, LOCAL, "acme", request)
    job = Job("ci", "acme/adapters", "4711", "publish.yml", "prod", {})

    def distrust() -> None:
        with db.write(engine) as connection:
            publishers.distrust(connection, LOCAL, "acme", made.id)

    with ThreadPoolExecutor(1) as pool:
        with db.write(engine) as connection:
            until = datetime.now(UTC) + timedelta(minutes=1)
            token = publishers.mint(connection, LOCAL, job, until).token
            taken_back = pool.submit(distrust)
            time.sleep(0.3)  # it has come to where it waits
            assert not taken_back.done()
        taken_back.result(20)
    with pytest.raises(AuthError):
        auth.identify(engine, token)


def test_who_takes_the_name_of_a_repository_that_was_given_up_is_not_trusted(small: World) -> None:
    made = small.admin.trust("acme", TRUST)
    small.mint()
    refused(ForbiddenError, lambda: small.mint(repository_id="4712"), "another repository now")
    small.mint()
    small.admin.distrust("acme", made.id)
    small.admin.trust("acme", TRUST)
    small.mint(repository_id="4712")


def test_new_keys_are_fetched_when_a_token_names_one_but_not_at_anybodys_will(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.admin.trust("acme", TRUST)
    issuer = small.issuer
    for _ in range(3):
        small.mint()
    assert issuer.asked == 1
    issuer.keys = [ECKey.generate_key("P-256", auto_kid=True)]
    issuer.published = [*issuer.published, *issuer.keys]
    for _ in range(3):
        refused(AuthError, small.mint, "kid")
    assert issuer.asked == 1
    monkeypatch.setattr(keys, "PAUSE_SECONDS", 0)
    small.mint()
    assert issuer.asked == 2


def test_a_slow_issuer_holds_up_nobody_but_who_asks_it(issuer: LocalIssuer) -> None:
    known = keys.IssuerKeys(Issuer(url=issuer.url, claims="github"), http=True)
    issuer.slow = 1.0
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(known.get, None)
        while not issuer.asked:
            time.sleep(0.01)
        for kid in (None, "unknown"):
            refused(RegistryError, lambda kid=kid: known.get(kid), "just now")  # type: ignore[misc]
        assert not asking.done()
        found = asking.result(20)
    assert known.get(None) is known.get("unknown") is found
    assert issuer.asked == 1


def test_an_issuer_that_never_comes_to_an_end_is_silent(
    issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_PATIENCE_SECONDS", 0.1)
    known = keys.IssuerKeys(Issuer(url=issuer.url, claims="github"), http=True)
    issuer.slow = 0.2
    refused(RegistryError, lambda: known.get(None), "too slow")


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://evil.example"},
        {"jwks_uri": "https://evil.example/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
    ],
)
def test_keys_are_taken_from_the_issuer_itself_only(
    small: World, discovery: dict[str, Any]
) -> None:
    small.admin.trust("acme", TRUST)
    small.issuer.discovery = discovery
    for word in ("is another's", "a moment ago"):  # and nobody makes the server ask at will
        refused(RegistryError, small.mint, word)
    assert small.issuer.asked == 0


def test_tokens_of_jobs_are_forgotten_when_they_have_expired(small: World) -> None:
    small.admin.trust("acme", TRUST)
    job = small.mint()
    engine = db.open_engine(db.sqlite_url(small.settings.data_dir / "registry.db"))
    with db.write(engine) as connection:
        past = datetime.now(UTC) - timedelta(seconds=1)
        connection.execute(sa.update(TOKEN).where(TOKEN.c.name != "admin").values(expires_at=past))
    refused(AuthError, job.list_adapters)
    small.mint()
    assert len(auth.list_all(engine)) == 2
    engine.dispose()


def test_refusals_do_not_fill_the_log(small: World) -> None:
    for _ in range(40):
        refused(AuthError, lambda: small.nobody.mint_token("x"))
    assert len(small.refusals()) == 30


@pytest.mark.parametrize(
    "issuer",
    [
        {"url": "http://127.0.0.1:1", "claims": "github"},
        {"url": "http://example.org", "claims": "github"},
        {"url": "example.org", "claims": "github"},
        {"url": "https://example.org", "claims": "other"},
    ],
)
def test_an_issuer_without_tls_or_form_is_no_setting(
    issuer: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKLOOM_SERVER_OIDC_ISSUERS", json.dumps({"ci": issuer}))
    with pytest.raises(ValueError, match=r"https|github"):
        Settings(data_dir=tmp_path)


def test_gitlab_says_it_in_its_own_words() -> None:
    claims = {
        "project_path": "Acme/models/adapters",
        "project_id": "22",
        "ci_config_ref_uri": "gitlab.com/Acme/models/adapters//ci/publish.yml@refs/heads/main",
        "environment": "Prod",
    }
    job = read_job("gitlab", Issuer(url="https://gitlab.com", claims="gitlab"), claims)
    assert (job.repository, job.workflow) == ("acme/models/adapters", "ci/publish.yml")
    assert (job.environment, job.repository_id) == ("prod", "22")
    foreign = "gitlab.com/evil/x//ci/publish.yml@refs/heads/main"
    issuer = Issuer(url="https://gitlab.com", claims="gitlab")
    job = read_job("gitlab", issuer, {**claims, "ci_config_ref_uri": foreign})
    assert job.workflow == "(evil/x//ci/publish.yml)"


def test_without_an_audience_of_its_own_a_server_takes_its_address(tmp_path: Path) -> None:
    from rankloom_server.oidc.exchange import Exchange

    settings = Settings(data_dir=tmp_path)
    assert Exchange(settings).audience == "rankloom"
    address = "https://registry.example.org"
    assert Exchange(settings.model_copy(update={"public_url": address})).audience == address
