"""The walls of the house: what may lie where, and what importing a door may load."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rankloom import __version__, errors, sdk

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = ("kernels", "sdk", "cli", "registry_server", "migrations", "tests")


@pytest.mark.parametrize("folder", SOURCE_ROOTS)
def test_top_level_folders_are_source_roots_not_packages(folder: str) -> None:
    # A kernels/__init__.py here would shadow another distribution's package of that name.
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize(
    "module",
    [
        "rankloom",
        "rankloom.sdk",
        "rankloom.client",
        "rankloom.validate",
        "rankloom.recipe",
        "loractl.main",
        "rankloom_server.app",
        "rankloom_server.service",
    ],
)
def test_importing_a_door_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", ["loractl.main", "rankloom.sdk"])
def test_quick_commands_load_neither_server_nor_database(module: str) -> None:
    heavy = "{'fastapi', 'sqlalchemy', 'boto3', 'alembic', 'uvicorn', 'numpy', 'httpx'}"
    code = f"import sys, {module}; print(*{heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert result.stdout.split() == []


def test_headers_are_validated_without_numpy() -> None:
    code = "import sys, rankloom.validate; print(*{'numpy', 'httpx'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert result.stdout.split() == []


def test_public_names_are_sorted_and_complete() -> None:
    assert sdk.__all__ == sorted(sdk.__all__)
    public = {name for name in vars(sdk) if not name.startswith("_")} - {"annotations"}
    assert public == set(sdk.__all__)


def test_every_error_code_has_one_status_and_one_exit_code() -> None:
    kinds = list(errors.tree())
    assert len({kind.code for kind in kinds}) == len(kinds), "two errors share a code"
    for kind in kinds:
        assert errors.error_class(kind.code) is kind
        assert 400 <= kind.http_status < 600
        assert 2 <= kind.exit_code <= 10  # 0 and 1 belong to `validate`


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"(\w+Error)\s+(?:(\d+) / (\d+))?", errors.__doc__ or "")
    table = {name: (exit_code, status) for name, exit_code, status in drawn}
    assert set(table) == {kind.__name__ for kind in errors.tree()}
    for kind in errors.tree():
        exit_code, status = table[kind.__name__]
        if exit_code:
            assert (int(exit_code), int(status)) == (kind.exit_code, kind.http_status)
        else:
            parent = kind.__base__
            assert parent is not None
            assert kind.exit_code == parent.exit_code  # type: ignore[attr-defined]


def test_changelog_and_package_agree_on_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_decisions_are_short() -> None:
    records = sorted((ROOT / "docs/adr").glob("*.md"))
    assert records
    for record in records:
        assert len(record.read_text().splitlines()) < 40, f"{record.name} is too long"
