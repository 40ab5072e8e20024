"""What is shipped: the wheel carries the migrations, the compose file no secret."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]


def test_a_registry_can_be_made_from_the_wheel(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*build, "--directory", str(tmp_path)], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = f"""
import pathlib, rankloom_server
from rankloom_server import db, service
here = pathlib.Path(rankloom_server.__file__).parent
assert db.migrations_folder() == here / "migrations"
service.open_embedded(pathlib.Path({str(tmp_path / "data")!r})).close()
print(here)
"""
    env = {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith(str(tmp_path / "site"))


def test_every_secret_of_the_compose_file_is_asked_for() -> None:
    used = re.findall(r"\$\{(\w+)([^}]*)\}", COMPOSE)
    assert used
    assert all(rest.startswith(":?") for _, rest in used), "a variable without a value must stop it"
    offered = dict(re.findall(r"^(\w+)=(.*)$", EXAMPLE, re.MULTILINE))
    assert set(offered) == {name for name, _ in used}
    assert {name: value for name, value in offered.items() if value} == {
        "S3_PUBLIC_ENDPOINT": "http://localhost:8333",
        "PUBLIC_URL": "http://localhost:8470",
    }
    registry = SERVICES["registry"]["environment"]
    assert registry["RANKLOOM_SERVER_PUBLIC_URL"].startswith("${PUBLIC_URL:?")
    secret = re.compile(r"^ +\w*(PASSWORD|SECRET|ACCESS_KEY)\w*: *(?!\$\{)\S", re.MULTILINE)
    assert not secret.search(COMPOSE)


def test_the_services_wait_for_each_other_and_are_closed_to_the_outside() -> None:
    assert set(SERVICES) == {"postgres", "seaweedfs", "migrate", "registry"}
    for service in SERVICES.values():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[needed]
            else:
                assert SERVICES[needed]["restart"] == "no"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port


def test_the_image_runs_as_nobody_special() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    last = lines.index("FROM python:3.11-slim")
    assert "USER rankloom" in lines[last:]
    assert "torch" not in "\n".join(line for line in lines if not line.startswith("#"))


def test_sigstore_keeps_its_root_of_trust_where_the_image_may_write() -> None:
    env = dict(re.findall(r"^(?:ENV| )+ (\w+)=(\S+)", (ROOT / "Dockerfile").read_text(), re.M))
    code = "import platformdirs as p; print(p.user_data_dir('x'), p.user_cache_dir('x'))"
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    assert all(folder.startswith("/data/") for folder in told.split())


def _docker_compose() -> list[str] | None:
    for client in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(client[0]) is None:
            continue
        version = subprocess.run([*client, "version"], capture_output=True, check=False)
        if version.returncode == 0:
            return client
    return None


@pytest.mark.skipif(
    _docker_compose() is None, reason="needs the client of docker compose (no engine)"
)
def test_docker_accepts_the_compose_file(tmp_path: Path) -> None:
    filled = re.sub(r"=$", "=abc123", EXAMPLE, flags=re.MULTILINE)
    (tmp_path / "env").write_text(filled)
    (tmp_path / "empty").write_text("")
    command = [*(_docker_compose() or []), "--file", str(ROOT / "docker-compose.yml"), "--env-file"]
    subprocess.run([*command, str(tmp_path / "env"), "config", "--quiet"], check=True)
    refused = subprocess.run(
        [*command, str(tmp_path / "empty"), "config"], capture_output=True, check=False
    )
    assert refused.returncode != 0
