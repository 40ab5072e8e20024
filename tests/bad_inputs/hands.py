"""Rows of the protocol, met by hand: what clients of ours never send."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote

import urllib3

from adapter_folder import manifest_of, send
from bad_inputs.by_hand import NAME, Hand, begun, post, put, said
from bad_inputs.door import HTTP
from bad_inputs.parts import in_parts, swapped
from bad_inputs.row import Never
from folders import adapter
from rankloom import digest
from rankloom.ref import AdapterName
from rankloom.registry.wire import UploadRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bad_inputs.by_hand import Act
    from bad_inputs.door import Door
    from rankloom.registry.wire import Version


def damaged(damage: Callable[[bytes], bytes]) -> Act:
    """Return what sends other bytes than were declared."""

    def act(door: Door, place: Path) -> str:
        upload, files = begun(door, place)
        answers = [put(target, damage(files[target.digest])) for target in upload.missing]
        refused = said(lambda: door.registry.publish(upload.id))
        assert not refused.startswith("accepted")
        assert door.registry.list_adapters().items == ()
        return answers[-1] or refused

    return act


def halves(data: bytes) -> bytes:
    """Return the second half before the first."""
    return data[len(data) // 2 :] + data[: len(data) // 2]


def overwritten(door: Door, place: Path) -> str:
    """Publish, and then send other bytes to the URL by which the weights came."""
    upload, files = begun(door, place)
    send(place / "adapter", upload)
    version = door.registry.publish(upload.id)
    target = upload.missing[-1]
    answer = put(target, halves(files[target.digest]))
    assert door.registry.publish(upload.id) == version
    kept = (
        door.stored(version, path) for path in ("adapter_config.json", "adapter_model.safetensors")
    )
    assert {file.read_bytes() for file in kept} == set(files.values())
    return answer


def at_once(door: Door, place: Path) -> str:
    """Push the same content eight times at the same time."""
    folder = adapter(place / "adapter")
    start = threading.Barrier(8)
    found: list[Version] = []

    def push() -> None:
        start.wait()
        upload = door.registry.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
        send(folder, upload)
        found.append(door.registry.publish(upload.id))

    threads = [threading.Thread(target=push) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    published = [
        line for line in door.registry.audit_log().items if line.action == "version.publish"
    ]
    versions = {(version.number, version.digest) for version in found}
    return f"{len(found)} answers, {len(versions)} version, {len(published)} publish"


def foreign(door: Door, place: Path) -> str:
    """Ask for a blob of another namespace by the signed URL of one's own."""
    upload, _ = begun(door, place, AdapterName("secret", "name"))
    send(place / "adapter", upload)
    door.registry.publish(upload.id)
    mine, _ = begun(door, place)
    send(place / "adapter", mine)
    version = door.registry.publish(mine.id)
    url = door.registry.blob_url(NAME, version.digest, "adapter_config.json")
    assert urllib3.request("GET", url).status == 200
    answer = urllib3.request("GET", url.replace("/blobs/default/", "/blobs/secret/"))
    assert b"peft_type" not in answer.data
    return str(answer.status)


def named(path: str) -> Act:
    """Return what declares a file of this path."""

    def act(door: Door, place: Path) -> str:
        del place
        file = {"path": path, "size": 1, "digest": digest.of_bytes(b"1")}
        body = json.dumps({"manifest": {"schema": 1, "files": [file]}}).encode()
        return post(door, "/adapters/default/name/uploads", body)

    return act


def called(name: str) -> Act:
    """Return what begins to push under this name."""

    def act(door: Door, place: Path) -> str:
        manifest = manifest_of(adapter(place / "adapter"))
        body = UploadRequest(manifest=manifest).model_dump_json(by_alias=True).encode()
        return post(door, f"/adapters/default/{quote(name, safe='')}/uploads", body)

    return act


PATHS = ("../x", "/etc/passwd", "a/../../b", "..\\x", "adapter_config.json\u202egnp", "con")

ROWS = (
    *(
        Hand(70, f"the path {ascii(path)[1:-1]} in a manifest", named(path), "SEC004", (HTTP,))
        for path in PATHS
    ),
    Hand(71, "other bytes than declared", damaged(lambda data: data[:-1] + b"\0"), "REG001"),
    Hand(71, "one byte too few", damaged(lambda data: data[:-1]), "REG001"),
    Hand(71, "one byte too many", damaged(lambda data: data + b"\0"), "REG001"),
    Hand(71, "no bytes", damaged(lambda data: data[:0]), "REG001"),
    Hand(72, "halves in another order", damaged(halves), "REG001"),
    Hand(
        72,
        "parts in another order",
        in_parts(swapped),
        "REG001",
        (HTTP,),
    ),
    Hand(72, "a part is missing", in_parts(lambda parts: parts[:-1]), "422", (HTTP,)),
    *(
        Hand(75, f"the name {ascii(name)[1:-1]}", called(name), "REG003", (HTTP,))
        for name in ("n\u0430me", "%2e%2e", "NAME")
    ),
    Hand(75, "a name of 97 letters", called("x" * 97), "REG003", (HTTP,)),
    Hand(76, "other bytes for a version that exists", overwritten, "REG001", (HTTP,)),
    Hand(77, "eight pushes of one content", at_once, "8 answers, 1 version, 1 publish"),
    Hand(78, "a signed URL for another namespace", foreign, "403", (HTTP,)),
)

NEVER = (
    Never(
        76,
        "another content under a version's digest",
        "a version is named by the digest of its content: other bytes are another version",
    ),
    Never(
        78,
        "a URL of the embedded registry for another tenant",
        "it has one user, whose own files its URLs are",
    ),
)
