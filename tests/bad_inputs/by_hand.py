"""What somebody does by hand who speaks the protocol without a client of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import urllib3

from adapter_folder import manifest_of
from bad_inputs.door import EMBEDDED, HTTP
from bad_inputs.row import Case
from folders import adapter
from rankloom.errors import RankloomError
from rankloom.ref import AdapterName
from rankloom.registry.wire import UploadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bad_inputs.door import Door
    from rankloom.registry.wire import PutTarget, Upload

    Act = Callable[[Door, Path], str]

NAME = AdapterName("default", "name")


@dataclass(frozen=True)
class Hand(Case):
    """A row that somebody does by hand.

    Attributes:
        act: does it, and returns what was answered.
        answer: what the answer must hold.
        doors: by which doors it can be done.
    """

    act: Act
    answer: str
    doors: tuple[str, ...] = (EMBEDDED, HTTP)


def begun(door: Door, place: Path, name: AdapterName = NAME) -> tuple[Upload, dict[str, bytes]]:
    """Begin to push the usual adapter; give also what should be sent, by digest."""
    folder = adapter(place / "adapter")
    request = UploadRequest(manifest=manifest_of(folder))
    files = {entry.digest: folder / entry.path for entry in request.manifest.files}
    content = {blob: path.read_bytes() for blob, path in files.items()}
    return door.registry.open_upload(name, request), content


def put(target: PutTarget, data: bytes) -> str:
    """Send bytes by hand; return the answer, or the empty text where a file is just written."""
    place = urlsplit(target.url)
    if place.scheme == "file":
        Path(place.path).parent.mkdir(parents=True, exist_ok=True)
        Path(place.path).write_bytes(data)
        return ""
    return put_bytes(target.url, target.headers, data)


def put_bytes(url: str, headers: Mapping[str, str], data: bytes) -> str:
    """Send bytes to a signed URL; return the answer."""
    sent = {**headers, "content-length": str(len(data))}
    answer = urllib3.request("PUT", url, body=data, headers=sent, retries=False)
    return f"{answer.status} {answer.data.decode()}"


def said(call: Callable[[], object]) -> str:
    """Return how a call was refused, or what it gave."""
    try:
        return f"accepted: {call()}"
    except RankloomError as error:
        return f"{error.http_status} {error.message}"


def post(door: Door, path: str, body: bytes) -> str:
    """Send a request that no client of ours sends."""
    headers = {
        "Authorization": f"Bearer {door.env['RANKLOOM_TOKEN']}",
        "Content-Type": "application/json",
    }
    url = f"{door.env['RANKLOOM_URL']}/api/v1{path}"
    answer = urllib3.request("POST", url, body=body, headers=headers, retries=False)
    return f"{answer.status} {answer.data.decode()}"
