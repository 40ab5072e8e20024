"""The examples of the page on publishing run, the workflow's in a job of a local issuer."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from adapter_folder import write_adapter
from oidc_issuer import LocalIssuer, running_issuer
from rankloom import sdk
from rankloom.client import Client
from rankloom_server.oidc.issuer import Issuer
from rankloom_server.settings import Settings
from servers import served

DOC = (Path(__file__).parents[2] / "docs/publishing.md").read_text()
PROGRAMS = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC, re.DOTALL)


def run(text: str) -> int:
    """Run the lines of a block; return how many they were."""
    lines = [line.removeprefix("$ ") for line in text.splitlines()]
    for line in lines:
        program, *arguments = shlex.split(line)
        own = PROGRAMS / program
        subprocess.run([own if own.exists() else program, *arguments], check=True)
    return len(lines)


@pytest.fixture
def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalIssuer]:
    """The issuer of a registry that this environment names, and two adapters here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANKLOOM_HOME", str(tmp_path / "home"))
    for seed, name in enumerate(("zh", "qa")):
        write_adapter(tmp_path / name, seed=seed)
    with running_issuer() as made:
        known = {"github": Issuer(url=made.url, claims="github")}
        settings = Settings(data_dir=tmp_path / "served", oidc_issuers=known, oidc_http=True)
        with served(settings) as (url, token):
            monkeypatch.setenv("RANKLOOM_URL", url)
            monkeypatch.setenv("RANKLOOM_TOKEN", token)
            yield made
            sdk._default.close()


def test_the_examples_of_signatures_run(issuer: LocalIssuer, tmp_path: Path) -> None:
    first, demand, _ = blocks("console")
    assert run(first) == 8
    names: dict[str, Path] = {}
    exec(compile(blocks("python")[0], "publishing.md", "exec"), names)  # noqa: S102 - our own text
    assert (names["folder"] / "adapter_model.safetensors").is_file()
    assert run(demand) == 2
    with Client() as client:
        assert client.resolve("acme/qa:prod").version.number == 1


def test_the_workflow_may_do_what_it_does_and_needs_no_token(
    issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(blocks("console")[2]) == 3
    monkeypatch.delenv("RANKLOOM_TOKEN")
    (workflow,) = blocks("yaml")
    job = yaml.safe_load(workflow)["jobs"]["publish"]
    assert job["permissions"]["id-token"] == "write"
    assert job["environment"] == issuer.claims()["environment"]
    for name, value in issuer.job().items():
        monkeypatch.setenv(name, value)
    (push,) = [step["run"] for step in job["steps"] if "loractl" in step.get("run", "")]
    assert run(push) == 1
