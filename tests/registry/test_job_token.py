"""The token of a job of CI, while a push takes longer than it lives; a registry others use."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import sleep

import pytest

from oidc_issuer import LocalIssuer, running_issuer
from rankloom.client import Client
from rankloom.errors import AuthError, NotFoundError
from rankloom.ref import AdapterName
from rankloom.registry import push
from rankloom.registry.wire import TrustRequest
from rankloom_server.oidc import exchange
from rankloom_server.oidc.issuer import Issuer
from rankloom_server.settings import Settings
from servers import served

pytestmark = pytest.mark.filterwarnings("ignore:BASE001")
TRUST = TrustRequest(issuer="ci", repository="acme/adapters", workflow="publish.yml")


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with running_issuer() as made:
        yield made


@pytest.fixture
def job(issuer: LocalIssuer, tmp_path: Path) -> Iterator[Client]:
    """A client without a token, of a registry whose namespace acme trusts the issuer's job."""
    known = {"ci": Issuer(url=issuer.url, claims="github")}
    settings = Settings(data_dir=tmp_path / "served", oidc_issuers=known, oidc_http=True)
    with served(settings) as (url, token):
        with Client(url, token) as admin:
            admin.registry.trust("acme", TRUST)
        with Client(url) as client:
            yield client


@pytest.fixture
def ends_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sending takes longer than a token lives that was minted before."""
    monkeypatch.setattr(exchange, "LIFE", timedelta(seconds=0.5))
    send = push.send

    def slow(*given: object) -> str:
        upload = send(*given)  # type: ignore[arg-type]
        sleep(0.6)
        return upload

    monkeypatch.setattr(push, "send", slow)


@pytest.mark.usefixtures("ends_on_the_way")
def test_a_push_outlives_the_token_that_it_began_with(
    job: Client, issuer: LocalIssuer, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in issuer.job().items():
        monkeypatch.setenv(name, value)
    assert job.push(adapter, "acme/zh", alias="prod").aliases == ("prod",)


def test_a_token_that_is_good_is_used_again(
    job: Client, issuer: LocalIssuer, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in issuer.job().items():
        monkeypatch.setenv(name, value)
    registry = job.registry
    for _ in range(2):
        job.push(adapter, "acme/zh", alias="prod")
    assert len(issuer.made_out_for) == 1
    assert job.registry is registry


def test_an_identity_token_that_is_there_once_is_not_shown_twice(
    job: Client, issuer: LocalIssuer, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "LIFE", timedelta(minutes=4))  # not fresh, but good
    monkeypatch.setenv("RANKLOOM_ID_TOKEN", issuer.token(aud="rankloom"))
    for _ in range(2):
        job.push(adapter, "acme/zh")


@pytest.mark.usefixtures("ends_on_the_way")
def test_a_token_that_cannot_be_had_again_ends_in_words(
    job: Client, issuer: LocalIssuer, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKLOOM_ID_TOKEN", issuer.token(aud="rankloom"))
    with pytest.raises(AuthError, match="unknown, revoked or expired"):
        job.push(adapter, "acme/zh")


def test_a_registry_that_is_in_use_stays_open_when_the_settings_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(Settings(data_dir=tmp_path / "served")) as (url, token):
        monkeypatch.setenv("RANKLOOM_URL", url)
        monkeypatch.setenv("RANKLOOM_TOKEN", token)
        with Client() as client:
            used = client.registry
            monkeypatch.setenv("RANKLOOM_TOKEN", "rl_other")
            with pytest.raises(AuthError):
                client.show("zh")
            with pytest.raises(NotFoundError):
                used.show(AdapterName("default", "zh"))
        with pytest.raises(RuntimeError, match="closed"):
            used.show(AdapterName("default", "zh"))
