"""A push refuses what `validate` refuses, and so does a registry to which it is sent by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from bad_inputs.by_hand import post, put
from bad_inputs.corpus import FILES
from bad_inputs.door import EMBEDDED, HTTP, opened
from bad_inputs.limits import bounds, check_bounds
from bad_inputs.row import FITTED, PUSH, VALIDATE
from rankloom import bases, digest
from rankloom.config import Settings
from rankloom.errors import NotFoundError, RankloomError
from rankloom.manifest import RECORD, read_record
from rankloom.ref import AdapterName
from rankloom.registry.wire import Upload, UploadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bad_inputs.bounded import Runner
    from bad_inputs.door import Door
    from bad_inputs.row import Row

ROWS = [row for row in FILES if row.command in {VALIDATE, FITTED}]
SENT = [row for row in ROWS if row.sent]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_command_refuses_it(row: Row, runner: Runner, tmp_path: Path) -> None:
    row.make(tmp_path)
    more = ("--base", "./base") if row.command == FITTED else ()
    ended = runner.run(tmp_path, (*PUSH, *more))
    answer = ended.out + ended.err
    check_bounds(ended)
    if row.refused:
        assert ended.code in {6, 7, 8}, answer
        assert row.refused in answer
    else:
        assert ended.code == 0, answer


@pytest.fixture(scope="module", params=[EMBEDDED, HTTP])
def door(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    """One registry for all rows, each under a name of its own."""
    with opened(request.param, tmp_path_factory.mktemp("door")) as made:
        yield made


@pytest.mark.parametrize("row", SENT, ids=lambda row: row.id)
def test_the_registry_refuses_it_by_hand(row: Row, door: Door, tmp_path: Path) -> None:
    row.make(tmp_path)
    name = f"row-{digest.of_bytes(row.id.encode())[7:19]}"
    request = declared(door, row, tmp_path, name)
    with bounds(2 if door.kind == HTTP else 1):
        answer = offered(door, name, tmp_path / "adapter", request)
    adapter = AdapterName("default", name)
    if row.refused:
        assert answer.startswith("4"), answer
        assert row.refused in answer
        with pytest.raises(NotFoundError):
            door.registry.show(adapter)
    else:
        assert door.registry.show(adapter).versions, answer


def declared(door: Door, row: Row, place: Path, name: str) -> dict[str, Any]:
    """Return what a client declares that checks nothing: every file there is."""
    folder = place / "adapter"
    files = [
        {"path": path.name, "size": path.stat().st_size, "digest": digest.of_file(path)}
        for path in sorted(folder.iterdir())
        if path.name != RECORD
    ]
    if row.command != FITTED:
        return {"manifest": {"schema": 1, "files": files}}
    known = bases.read(Settings(place / "home"), place / "base")
    door.registry.add_base(known.to_record(name))
    made_for = read_record(folder)
    base = made_for.base if made_for and made_for.base else known.fingerprint
    manifest = {"schema": 1, "files": files, "base": base.model_dump(exclude_none=True)}
    return {"manifest": manifest, "base": name}


def offered(door: Door, name: str, folder: Path, request: dict[str, Any]) -> str:
    """Send the requests of a push by hand; return the answer to the last."""
    paths = {file["digest"]: folder / file["path"] for file in request["manifest"]["files"]}
    if door.kind == HTTP:
        answer = post(door, f"/adapters/default/{name}/uploads", json.dumps(request).encode())
        if not answer.startswith("2"):
            return answer
        upload = Upload.model_validate_json(answer.partition(" ")[2])
        for target in upload.missing:
            put(target, paths[target.digest].read_bytes())
        return post(door, f"/uploads/{upload.id}/publish", b"")
    try:
        wanted = UploadRequest.model_validate_json(json.dumps(request))
        upload = door.registry.open_upload(AdapterName("default", name), wanted)
        for target in upload.missing:
            put(target, paths[target.digest].read_bytes())
        return f"200 {door.registry.publish(upload.id)}"
    except ValidationError as error:
        return f"422 {error}"
    except RankloomError as error:
        return f"{error.http_status} {error.message} {error.findings}"
