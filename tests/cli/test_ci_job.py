"""A job of CI pushes without a kept token: by itself, or after a login by its identity."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from command_line import Run, answer
from oidc_issuer import LocalIssuer, running_issuer
from rankloom.errors import ForbiddenError
from rankloom.registry import ambient
from rankloom.registry.http import HttpRegistry
from rankloom_server.oidc.issuer import Issuer
from rankloom_server.settings import Settings
from servers import served

pytestmark = pytest.mark.filterwarnings("ignore:BASE001")
TRUST = ("--issuer", "ci", "--repository", "acme/adapters", "--workflow", "publish.yml")


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with running_issuer() as made:
        yield made


@pytest.fixture
def registry(
    issuer: LocalIssuer,
    place: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[str]:
    """A registry, named by the environment, whose namespace acme trusts the issuer's job."""
    known = {"ci": Issuer(url=issuer.url, claims="github")}
    settings = Settings(
        data_dir=place / "served",
        oidc_issuers=known,
        oidc_http=True,
        oidc_audience=getattr(request, "param", ""),
    )
    with served(settings) as (url, token):
        monkeypatch.setenv("RANKLOOM_URL", url)
        monkeypatch.setenv("RANKLOOM_TOKEN", token)
        assert "acme/adapters publish.yml" in run("namespace", "trust", "acme", *TRUST).stdout
        monkeypatch.delenv("RANKLOOM_TOKEN")
        yield url


def become(job: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in job.items():
        monkeypatch.setenv(name, value)


def test_a_push_in_a_trusted_job_needs_no_token(
    run: Run, registry: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("push", "./zh", "acme/zh", "--base", "./base", "--alias", "prod", code=9)
    become(issuer.job(), monkeypatch)
    pushed = answer(run("push", "./zh", "acme/zh", "--base", "./base", "--alias", "prod", "--json"))
    assert pushed["aliases"] == ["prod"]
    assert pushed["creator"].startswith("ci.ci.acme-adapters.")
    assert "ci.ci" in run("push", "./qa", "acme/zh", "--json").stdout  # with the token it has
    said = run("push", "./zh", "other/zh", code=9)
    assert "other" in said.stderr
    assert not list((Path.cwd() / "home").glob("config.json"))


def test_a_login_by_identity_is_kept_for_other_commands(
    run: Run, registry: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run("login", registry, "--oidc", code=9).stderr
    assert "id-token: write" in said
    become(issuer.job(), monkeypatch)
    run("login", registry, "--oidc", "--token", "rl_x", code=2)
    assert "rl_" not in run("login", registry, "--oidc").output
    kept = json.loads((Path.cwd() / "home/config.json").read_text())
    assert kept["token"].startswith("rl_")
    run("push", "./zh", "acme/zh")
    assert run("list").stdout.count("acme/zh") == 1
    # Once it has ended, the job asks again.
    left = datetime.fromisoformat(kept["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=14) < left <= timedelta(minutes=15)
    ended = kept | {"token": "rl_ended", "expires_at": datetime.now(UTC).isoformat()}
    (Path.cwd() / "home/config.json").write_text(json.dumps(ended))
    run("push", "./qa", "acme/qa")
    ended["expires_at"] = kept["expires_at"]
    (Path.cwd() / "home/config.json").write_text(json.dumps(ended))
    assert "unknown, revoked or expired" in run("push", "./qa", "acme/qa", code=9).stderr


def test_gitlab_puts_the_token_into_a_variable(
    run: Run, registry: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKLOOM_ID_TOKEN", issuer.token(aud="rankloom"))
    run("push", "./zh", "acme/zh")


@pytest.mark.parametrize("registry", ["https://cloud.example"], indirect=True)
def test_a_registry_gets_no_token_for_another_service(
    run: Run, registry: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(issuer.job(), monkeypatch)
    said = run("push", "./zh", "acme/zh", code=9).stderr
    assert "'https://cloud.example', which is not itself" in said
    assert issuer.made_out_for == []
    monkeypatch.setenv("RANKLOOM_OIDC_AUDIENCE", "https://cloud.example")
    run("push", "./zh", "acme/zh")
    assert issuer.made_out_for == ["https://cloud.example"]


@pytest.mark.parametrize("name", ["the registry itself", "one beside it"])
def test_a_registry_is_itself_by_its_whole_address(
    issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    url = "https://Registry.example:443/team"
    asked = {
        "the registry itself": "https://registry.example/team/",
        "one beside it": "https://registry.example/other",
    }[name]
    monkeypatch.setattr(HttpRegistry, "audience", lambda _: asked)
    monkeypatch.setattr(HttpRegistry, "mint_token", lambda *_: "minted")
    become(issuer.job(), monkeypatch)
    if name == "the registry itself":
        assert ambient.exchange(url) == "minted"
        assert issuer.made_out_for == [asked]
    else:
        with pytest.raises(ForbiddenError, match="not itself"):
            ambient.exchange(url)


def test_a_job_does_not_tell_who_it_is_where_others_read_along(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HttpRegistry, "_request", None)  # nothing is sent
    monkeypatch.setenv("RANKLOOM_ID_TOKEN", "an-identity-token")
    said = run("login", "http://registry.example", "--oidc", code=9).stderr
    assert "https://" in said
    assert "an-identity-token" not in said


def test_a_job_that_is_not_trusted_is_told_which_it_is(
    run: Run, registry: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = issuer.token(aud="rankloom", repository="evil/adapters")
    monkeypatch.setenv("RANKLOOM_ID_TOKEN", changed)
    said = run("push", "./zh", "acme/zh", code=9).stderr
    assert "evil/adapters" in said
    assert "namespace trust" in said


def test_ci_that_refuses_is_an_error_with_the_permission_that_is_missing(
    run: Run, registry: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    become({**issuer.job(), "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "wrong"}, monkeypatch)
    assert "id-token: write" in run("push", "./zh", "acme/zh", code=9).stderr


def test_a_given_token_is_used_whatever_ci_says(
    run: Run, registry: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(issuer.job(), monkeypatch)
    monkeypatch.setenv("RANKLOOM_TOKEN", "rl_unknown")
    assert "unknown, revoked or expired" in run("push", "./zh", "acme/zh", code=9).stderr


def test_trust_is_listed_and_taken_back(run: Run) -> None:
    made = answer(run("namespace", "trust", "acme", *TRUST, "--environment", "prod", "--json"))
    assert answer(run("namespace", "trusted", "acme", "--json")) == [made]
    assert "acme/adapters" in run("namespace", "trusted", "acme").stdout
    run("namespace", "distrust", "acme", str(made["id"]))
    run("namespace", "distrust", "acme", str(made["id"]), code=4)
    bad = ("--issuer", "ci", "--repository", "adapters", "--workflow", "publish.yml")
    assert "repository" in run("namespace", "trust", "acme", *bad, code=2).stderr
