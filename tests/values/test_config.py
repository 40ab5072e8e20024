import json
from pathlib import Path

import pytest

from rankloom import config
from rankloom.errors import RefError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKLOOM_HOME", str(tmp_path))
    monkeypatch.delenv("RANKLOOM_URL", raising=False)
    monkeypatch.delenv("RANKLOOM_TOKEN", raising=False)
    return tmp_path


def test_without_anything_the_embedded_registry_is_meant(home: Path) -> None:
    assert config.load() == config.Settings(home)
    assert config.load().registry_dir.is_relative_to(home)


def test_a_login_is_remembered_and_readable_by_its_user_only() -> None:
    path = config.remember("http://one", "rl_secret")
    assert path.stat().st_mode & 0o777 == 0o600
    assert (config.load().url, config.load().token) == ("http://one", "rl_secret")


def test_the_environment_wins_and_a_kept_token_stays_with_its_registry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config.remember("http://one", "rl_secret")
    monkeypatch.setenv("RANKLOOM_URL", "http://two")
    assert (config.load().url, config.load().token) == ("http://two", None)
    monkeypatch.setenv("RANKLOOM_TOKEN", "rl_two")
    assert config.load().token == "rl_two"


def test_a_token_is_never_printed() -> None:
    assert "rl_secret" not in repr(config.Settings(Path(), "http://one", "rl_secret"))


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"url": 3}', '{"expires_at": "2030-01-01"}', '{"expires_at": "x"}']
)
def test_a_broken_config_file_is_refused(home: Path, content: str) -> None:
    (home / "config.json").write_text(content)
    with pytest.raises(RefError):
        config.load()
    (home / "config.json").write_text(json.dumps({"url": "http://one"}))
    assert config.load().url == "http://one"
