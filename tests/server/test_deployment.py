"""What is shipped: the wheel carries the migrations, the compose file no secret."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import urllib3
import yaml

from adapter_folder import push, write_adapter
from rankloom.registry.http import HttpRegistry
from rankloom_server import serve
from servers import Postgres, answers, free_ports, process, weed_ports

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]
REGISTRY = SERVICES["registry"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


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


def _filled(text: str, known: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)[^}]*\}", lambda found: known[found[1]], text)


@pytest.mark.services
def test_what_the_compose_file_starts_is_a_registry(postgres: Postgres, tmp_path: Path) -> None:
    """Its processes one by one: other addresses, no images."""
    weed, store, listening = SERVICES["seaweedfs"], weed_ports(), free_ports(1)[0]
    s3, url = f"127.0.0.1:{store['s3.port']}", f"http://127.0.0.1:{listening}"
    known = dict.fromkeys(("POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"), "a1b2c3")
    known |= {"S3_PUBLIC_ENDPOINT": f"http://{s3}", "PUBLIC_URL": url}
    here = [*("-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"), f"-s3.localSocket={tmp_path}/sock"]
    here += [f"-{name}={port}" for name, port in store.items()]
    command = [str(Path(sys.executable).with_name("weed")), *weed["command"], *here]
    env = {name: _filled(value, known) for name, value in weed["environment"].items()}
    health = weed["healthcheck"]["test"][-1].replace("127.0.0.1:8333", s3)
    with process(command, tmp_path / "s3.log", lambda: _is_well(health), env=env):
        of_image = json.loads(re.findall(r"CMD (\[.*\])", DOCKERFILE)[0])
        probe = [sys.executable, *(part.replace("8470", str(listening)) for part in of_image[1:])]
        env = {
            **{name: _filled(value, known) for name, value in REGISTRY["environment"].items()},
            "RANKLOOM_SERVER_DATABASE_URL": postgres.new_database(),
            "RANKLOOM_SERVER_S3_ENDPOINT": f"http://{s3}",
            "RANKLOOM_SERVER_DATA_DIR": str(tmp_path / "data"),
            "RANKLOOM_SERVER_PORT": str(listening),
        }
        program = [sys.executable, "-m", "rankloom_server"]
        migrate = [*program, *SERVICES["migrate"]["command"]]
        subprocess.run(migrate, env={**os.environ, **env}, check=True)
        log = tmp_path / "registry.log"
        with process(program, log, lambda: answers(url) and _succeeds(probe), env=env):
            token = re.findall(r"rl_[\w-]{43}", log.read_text())[0]
            registry = HttpRegistry(url, token)
            version = push(registry, write_adapter(tmp_path / "zh"))
            address = registry.blob_url(version.adapter, version.digest, "adapter_config.json")
            assert address.startswith(f"http://{s3}/rankloom/")
            sent = (tmp_path / "zh/adapter_config.json").read_bytes()
            assert urllib3.request("GET", address, retries=False).data == sent
            registry.close()


def _is_well(url: str) -> bool:
    return answers(url) and urllib3.request("GET", url, retries=False).status == 200


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_container_has_time_to_end_its_requests() -> None:
    grace = float(REGISTRY["stop_grace_period"].removesuffix("s"))
    assert grace > serve._GRACE_SECONDS


def test_the_image_runs_as_nobody_special() -> None:
    lines = DOCKERFILE.splitlines()
    last = lines.index("FROM python:3.11-slim")
    assert "USER rankloom" in lines[last:]
    assert "torch" not in "\n".join(line for line in lines if not line.startswith("#"))


def test_sigstore_keeps_its_root_of_trust_where_the_image_may_write() -> None:
    env = dict(re.findall(r"^(?:ENV| )+ (\w+)=(\S+)", DOCKERFILE, re.M))
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
