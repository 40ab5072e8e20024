"""sign, verify, and what other commands have to do with signatures."""

from pathlib import Path
from typing import cast

import pytest

from command_line import Run, answer
from rankloom.registry.wire import NamespaceRules
from rankloom_server.service import Service
from signing_keys import encrypted, key_pair

pytestmark = pytest.mark.filterwarnings("ignore:BASE001")


@pytest.fixture
def keys(place: Path) -> Path:
    for name in ("ours", "other"):
        key_pair(place, name)
    return place


def test_a_version_is_signed_verified_and_pulled(run: Run, keys: Path) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    assert "SEC007" in run("verify", "zh", "--key", "ours.pub", code=8).stderr
    made = answer(run("sign", "zh", "--key", "ours.pem", "--json"))
    assert made["digest"] in run("sign", "zh", "--key", "ours.pem").stdout
    assert "by key" in run("verify", "zh", "--key", "ours.pub", "-o", "zh.sig").stdout
    assert (keys / "zh.sig").read_text() == made["bundle"]
    run("verify", "zh", "--key", "other.pub", code=8)
    refused = run("pull", "zh", "-o", "out", "--require-signature", "--key", "other.pub", code=8)
    assert "SEC007" in refused.stderr
    assert not (keys / "out").exists()
    run("pull", "zh", "-o", "out", "--require-signature", "--key", "ours.pub")
    run("verify", "./out", "--key", "ours.pub", "--signature", "zh.sig")
    signer = answer(run("verify", "zh", "--key", "ours.pub", "--json"))["signer"]
    assert signer["pem"] == (keys / "ours.pub").read_text()


def test_a_folder_is_signed_into_a_file(run: Run, keys: Path) -> None:
    run("sign", "./zh", "--key", "ours.pem", "-o", "zh.sig")
    run("verify", "./zh", "--key", "ours.pub", "--signature", "zh.sig")
    run("verify", "./qa", "--key", "ours.pub", "--signature", "zh.sig", code=8)


def test_a_namespace_demands_signatures_until_it_does_not(run: Run, keys: Path) -> None:
    run("namespace", "set", "acme", "--require-signature", "--key", "ours.pub")
    assert "key " in run("namespace", "show", "acme").stdout
    run("push", "./zh", "acme/zh", "--alias", "prod", code=8)
    run("push", "./zh", "acme/zh", "--alias", "prod", "--sign-with", "other.pem", code=8)
    run("push", "./zh", "acme/zh", "--alias", "prod", "--sign-with", "ours.pem")
    run("namespace", "set", "acme", "--keep-days", "3")  # what is not named stays
    run("push", "./qa", "acme/zh")
    run("pull", "acme/zh", code=8)
    run("pull", "acme/zh:prod")
    run("alias", "acme/zh@v1", "prod")
    run("namespace", "set", "acme", "--no-require-signature")
    run("pull", "acme/zh")
    actions = [line["action"] for line in answer(run("audit", "--namespace", "acme", "--json"))]
    assert actions.count("version.sign") == 1


def test_rules_that_are_set_at_the_same_time_leave_each_other_alone(
    run: Run, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = ("--require-signature", "--key", "ours.pub")

    def overtake(step: str, *quicker: str) -> None:
        write = getattr(Service, step)

        def overtaken(*args: object, **more: object) -> NamespaceRules:
            monkeypatch.setattr(Service, step, write)
            run("namespace", "set", "acme", *quicker)
            return cast(NamespaceRules, write(*args, **more))

        monkeypatch.setattr(Service, step, overtaken)

    slow = {"set_namespace_rules": ("--keep-days", "3"), "protect": ("--protect", "prod")}
    run("namespace", "set", "acme", "--protect", "stable")
    for step, slower in slow.items():
        run("namespace", "set", "acme", "--no-require-signature", "--unprotect", "stable")
        overtake(step, *by, "--protect", "stable")
        rules = answer(run("namespace", "set", "acme", *slower, "--json"))
        assert [one["kind"] for one in rules["required_signers"]] == ["key"]
    assert (rules["keep_days"], rules["protected_aliases"]) == (3, ["prod", "stable"])


def test_a_password_comes_from_the_environment(
    run: Run, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = str(encrypted(keys / "ours.pem", "a word"))
    run("push", "./zh", "zh")
    run("sign", "zh", "--key", secret, code=2)
    monkeypatch.setenv("RANKLOOM_KEY_PASSWORD", "a word")
    run("push", "./zh", "zh", "--sign-with", secret)
    run("verify", "zh", "--key", "ours.pub")


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "zh"),
        ("verify", "./zh", "--key", "ours.pub"),
        ("verify", "zh", "--identity", "a@example.org"),
        ("pull", "zh", "--require-signature"),
        ("pull", "zh", "--key", "ours.pub"),
        ("sign", "zh"),
        ("sign", "zh", "--key", "ours.pem", "--sigstore"),
        ("sign", "./zh", "--key", "ours.pem"),
        ("sign", "zh", "--key", "ours.pem", "--chain", "ca.crt"),
        ("sign", "zh", "--sigstore", "--certificate", "ours.crt"),
        ("sign", "zh", "--signature", "zh.sig", "--certificate", "ours.crt"),
        ("sign", "zh", "--key", "ours.pem", "-o", "zh.sig"),
        ("namespace", "set", "acme", "--require-signature"),
        ("namespace", "set", "acme", "--key", "ours.pub"),
    ],
)
def test_half_a_request_is_wrong_usage(run: Run, keys: Path, arguments: tuple[str, ...]) -> None:
    run(*arguments, code=2)


def test_without_a_network_sigstore_gives_no_signature(run: Run, keys: Path) -> None:
    run("push", "./zh", "zh")
    said = run("sign", "zh", "--sigstore", code=10)
    assert "--key signs without" in said.stderr
