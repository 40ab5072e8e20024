"""The cache, and being offline, as a user sees them."""

import os
from pathlib import Path

import pytest

from command_line import Run, answer
from rankloom import sdk
from rankloom.errors import IntegrityError, OfflineError
from rankloom_server.settings import Settings
from servers import served


@pytest.fixture
def pulled(run: Run, place: Path) -> Path:
    """The blob of an adapter's weights in the cache, used by nobody."""
    run("push", "./zh", "zh", "--base", "./base")
    run("pull", "zh")
    sdk._default.close()
    return max(place.glob("home/cache/blobs/*/*/*"), key=lambda path: path.stat().st_size)


def test_the_cache_is_listed(run: Run, place: Path) -> None:
    assert "the cache is empty" in run("cache", "list").stdout
    run("push", "./zh", "zh", "--base", "./base")
    digest = answer(run("show", "zh", "--json"))["versions"][0]["digest"]
    run("pull", "zh@v1")
    run("pull", "zh")
    shown = run("cache", "list").stdout
    assert "zh:latest, zh@v1" in shown
    assert digest.removeprefix("sha256:")[:12] in shown
    found = answer(run("cache", "list", "--json"))
    (version,) = found["versions"]
    assert (version["digest"], version["missing_bytes"]) == (digest, 0)
    assert {(known["registry"], known["ref"]) for known in version["refs"]} == {
        ("embedded", "zh:latest"),
        ("embedded", "zh@v1"),
    }
    files = [path for path in (place / "zh").iterdir() if path.is_file()]
    assert version["bytes"] == sum(path.stat().st_size for path in files) < found["bytes"]


def test_damage_is_named_and_mended(run: Run, pulled: Path) -> None:
    assert "2 blobs hashed" in run("cache", "verify").stdout
    pulled.write_bytes(b"x" * pulled.stat().st_size)
    code = IntegrityError.exit_code
    shown = run("cache", "verify", code=code).stdout
    assert f"damaged: {pulled}, sha256:{pulled.name}: sha256:" in shown
    found = answer(run("cache", "verify", "--json", code=code))
    assert found["damaged"][0]["path"] == str(pulled)
    assert not found["repaired"]
    assert answer(run("cache", "verify", "--repair", "--json", code=code))["repaired"]
    assert answer(run("cache", "verify", "--json"))["damaged"] == []
    run("pull", "zh")
    assert answer(run("cache", "verify", "--json"))["blobs"] == 2


def test_damage_that_is_in_use_is_not_called_mended(run: Run, pulled: Path) -> None:
    with sdk.Client() as other:
        other.pull("zh")
        pulled.write_bytes(b"x" * pulled.stat().st_size)
        shown = run("cache", "verify", "--repair", code=IntegrityError.exit_code).stdout
        assert f"in use: {pulled}" in shown
        assert "once the process that uses it has ended" in shown
        found = answer(run("cache", "verify", "--repair", "--json", code=IntegrityError.exit_code))
        assert not found["repaired"]
    assert "removed" in run("cache", "verify", "--repair", code=IntegrityError.exit_code).stdout


def test_the_cache_is_pruned_by_age_and_size(run: Run, pulled: Path) -> None:
    assert "0 versions" in run("cache", "prune", "--older-than", "1d").stdout
    os.utime(pulled, (0, 0))
    shown = run("cache", "prune", "--older-than", "1d", "--dry-run").stdout
    assert "1 versions, 2 blobs and 0 leftovers would be removed" in shown
    assert "1970-01-01" in shown
    assert pulled.exists()
    assert answer(run("cache", "prune", "--max-size", "1GB", "--json"))["versions"] == []
    (version,) = answer(run("cache", "prune", "--max-size", "1KB", "--json"))["versions"]
    assert version["refs"][0]["ref"] == "zh:latest"
    assert not pulled.exists()
    assert "the cache is empty" in run("cache", "list").stdout


def test_what_is_in_use_is_said(run: Run, pulled: Path) -> None:
    with sdk.Client() as other:
        other.pull("zh")
        os.utime(pulled, (0, 0))
        assert "in use, so it stays:" in run("cache", "prune", "--older-than", "1d").stdout
        assert answer(run("cache", "prune", "--older-than", "1d", "--json"))["in_use"]
    assert pulled.exists()


@pytest.mark.parametrize("wrong", ["30", "d", "-1d", "1w", "1.5d"])
def test_a_time_that_is_none_is_refused(run: Run, wrong: str) -> None:
    assert "no time such as" in run("cache", "prune", f"--older-than={wrong}", code=2).output


def test_offline_shows_the_age_of_a_name_and_asks_nobody(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(Settings(data_dir=place / "served")) as (url, token):
        monkeypatch.setenv("RANKLOOM_URL", url)
        monkeypatch.setenv("RANKLOOM_TOKEN", token)
        run("push", "./zh", "zh", "--base", "./base")
        folder = run("pull", "zh").stdout
    failed = run("pull", "zh", code=3).stderr
    assert "cannot be reached" in failed
    assert "--offline" in failed
    done = run("pull", "zh", "--offline")
    assert done.stdout == folder
    assert "warning:" in done.stderr
    assert "may name another version by now" in done.stderr
    assert answer(run("validate", "zh@v1", "--offline", "--json"))
    tune = ("tune", "qa", "--base", "./base", "--command", "true")
    for command in (("pull", "qa"), tune):
        refused = answer(run(*command, "--offline", "--json", code=OfflineError.exit_code))
        assert (refused["error"]["code"], "RANKLOOM_OFFLINE" in os.environ) == ("offline", False)
    monkeypatch.setenv("RANKLOOM_OFFLINE", "1")
    assert "this is offline" in run("list", code=3).stderr
    monkeypatch.setenv("RANKLOOM_OFFLINE", "maybe")
    assert "neither yes nor no" in run("list", code=2).stderr
