"""A base behind an address, known by its config and headers alone: nothing else is fetched.

What is fetched is put into a folder as files of their true length with holes for the values, and
read there by :mod:`rankloom.base.reader`, so that a remote base obeys the same rules.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rankloom.base import reader
from rankloom.base.fingerprint import fingerprint
from rankloom.errors import BackendUnavailableError, BaseError, NotFoundError, RankloomError
from rankloom.tensorfile.header import LENGTH_BYTES, header_length

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.base.model import Base
    from rankloom.fingerprint import Fingerprint

_SCHEMES = ("https://", "http://", "s3://")
_INDEX = "model.safetensors.index.json"
_SECONDS = 30.0


def is_address(base: object) -> bool:
    """Say whether a base is meant by its address."""
    return isinstance(base, str) and base.startswith(_SCHEMES)


class _Files(Protocol):
    """The files behind an address."""

    def read(self, name: str, start: int, stop: int) -> tuple[bytes, int]:
        """Return the bytes from ``start`` to ``stop`` (or the end), and the file's length.

        Raises:
            NotFoundError: there is no such file.
        """


def read(address: str) -> tuple[Base, Fingerprint]:
    """Return a base with its headers, and what of its fingerprint they tell.

    Args:
        address: ``https://…`` or ``s3://bucket/prefix``, of the folder of ``config.json``.

    Raises:
        BaseError: it cannot be read, or not by ranges.
        NotFoundError: there is no safetensors base.
    """
    place = address.rstrip("/")
    with _open(place) as files, tempfile.TemporaryDirectory(prefix="rankloom-") as name:
        folder = Path(name)
        try:
            _fetch(files, folder)
            base = reader.read(folder)
        except RankloomError as error:
            told = error.message.replace(name, place)
            raise type(error)(told, hint=error.hint, findings=error.findings) from error
        return replace(base, path=Path(), files=()), fingerprint(base, values=False)


def _fetch(files: _Files, folder: Path) -> None:
    names = [reader.SINGLE]
    for name in (reader.CONFIG, _INDEX):
        try:
            data, size = files.read(name, 0, reader.MAX_JSON_BYTES)
        except NotFoundError:
            continue
        if size > len(data):
            message = f"{folder / name} is larger than {reader.MAX_JSON_BYTES} bytes"
            raise BaseError(message, hint="give the address of a base")
        (folder / name).write_bytes(data)
    if (folder / _INDEX).exists():
        names = reader.shards(folder / _INDEX)
    for name in names:
        _fetch_header(files, folder / name)


def _fetch_header(files: _Files, path: Path) -> None:
    prefix, size = files.read(path.name, 0, LENGTH_BYTES)
    length = header_length(prefix, size, path, error=BaseError)
    text, _ = files.read(path.name, LENGTH_BYTES, LENGTH_BYTES + length)
    with path.open("wb") as stream:
        stream.write(prefix + text)
        stream.truncate(size)


@contextmanager
def _open(address: str) -> Iterator[_Files]:
    if address.startswith("s3://"):
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        yield _Bucket(_s3(), bucket, f"{prefix}/" if prefix else "")
        return
    import httpx

    with httpx.Client(follow_redirects=True, timeout=_SECONDS) as client:
        yield _Site(client, address)


def _beyond(address: str) -> BaseError:
    message = f"{address} does not answer requests for a part of a file"
    return BaseError(message, hint="download the base, and give its folder")


@dataclass(frozen=True, slots=True)
class _Site:
    client: Any
    address: str

    def read(self, name: str, start: int, stop: int) -> tuple[bytes, int]:
        import httpx

        url = f"{self.address}/{name}"
        try:
            asked = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
            with self.client.stream("GET", url, headers=asked) as response:
                return self._take(response, url, stop - start)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            message = f"{url} cannot be read: {error}"
            raise BaseError(message, hint="check the address and the network") from error

    def _take(self, response: Any, url: str, wanted: int) -> tuple[bytes, int]:  # noqa: ANN401
        if response.status_code in {404, 410}:
            message = f"there is no {url}"
            raise NotFoundError(message, hint="give the address of the folder of config.json")
        total = response.headers.get("content-range", "").rpartition("/")[2]
        if response.status_code != 206 or not total.isdecimal():
            raise _beyond(url)
        data = b""
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) > wanted:
                raise _beyond(url)
        return data, int(total)


@dataclass(frozen=True, slots=True)
class _Bucket:
    client: Any
    bucket: str
    prefix: str

    def read(self, name: str, start: int, stop: int) -> tuple[bytes, int]:
        from botocore.exceptions import BotoCoreError, ClientError

        key = f"{self.prefix}{name}"
        place = f"s3://{self.bucket}/{key}"
        try:
            span = f"bytes={start}-{stop - 1}"
            answer = self.client.get_object(Bucket=self.bucket, Key=key, Range=span)
            data = answer["Body"].read(stop - start + 1)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in {"NoSuchKey", "NoSuchBucket", "404"}:
                message = f"there is no {place}"
                raise NotFoundError(message, hint="check the bucket and the prefix") from error
            message = f"{place} cannot be read: {error}"
            raise BaseError(message, hint="check the credentials") from error
        except BotoCoreError as error:
            message = f"{place} cannot be read: {error}"
            raise BaseError(message, hint="check the address and the credentials") from error
        total = str(answer.get("ContentRange", "")).rpartition("/")[2]
        if not total.isdecimal() or len(data) > stop - start:
            raise _beyond(place)
        return data, int(total)


def _s3() -> Any:  # noqa: ANN401 - boto3's clients have no types
    try:
        import boto3
    except ImportError as error:
        message = "boto3 is not installed, so s3:// cannot be read"
        raise BackendUnavailableError(message, hint="pip install 'rankloom[server]'") from error
    return boto3.client("s3")
