"""Checkpoints in S3: read by ranges, written in parts, without a copy of their tensors here.

Access is configured as for every program that uses boto3: ``AWS_ENDPOINT_URL``, profiles, roles.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rankloom.apply.partial import Finished
from rankloom.errors import BackendUnavailableError, BaseError, ConflictError, RefError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

    from rankloom.apply.steps import ShardPlan
    from rankloom.apply.transfer import Source

_HEADS, _SUFFIX = 8, ".safetensors"

PART_BYTES = 32 << 20
"""Of a multipart upload: 10 000 parts, as many as S3 takes, are 335 GB; each worker fills at most
two at once."""


def is_s3(place: object) -> bool:
    """Tell whether a place is an ``s3://`` URL."""
    return isinstance(place, str) and place.startswith("s3://")


class Prefix:
    """A folder in a bucket.

    Args:
        url: ``s3://bucket/prefix``.

    Raises:
        RefError: the URL names no bucket and prefix.
        BackendUnavailableError: boto3 is not installed.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url, self.bucket, self.prefix = url, parts.netloc, parts.path.strip("/") + "/"
        if not parts.netloc or self.prefix == "/":
            message = f"{url!r} names no folder"
            raise RefError(message, hint="write s3://bucket/folder")
        try:
            import boto3
        except ImportError:
            message = f"{url} needs boto3, which is not installed"
            raise BackendUnavailableError(message, hint="pip install 'rankloom[s3]'") from None
        self.client: S3Client = boto3.client("s3")

    def names(self) -> dict[str, int]:
        """Return the files right in this folder, with their sizes."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix, Delimiter="/"
        )
        found = [item for page in pages for item in page.get("Contents", [])]
        return {item["Key"].removeprefix(self.prefix): item["Size"] for item in found}

    def get(self, name: str, start: int, count: int) -> bytes:
        """Return ``count`` bytes of a file from ``start`` on, fewer where it ends."""
        if not count:
            return b""
        span = f"bytes={start}-{start + count - 1}"
        found = self.client.get_object(Bucket=self.bucket, Key=self.prefix + name, Range=span)
        return found["Body"].read()

    def put(self, name: str, data: bytes) -> None:
        """Write a small file."""
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=data)


def shadow(prefix: Prefix, folder: Path) -> None:
    """Make a folder look like a checkpoint in S3 to whoever reads headers only.

    Small files are copied; tensors are holes of the right size behind their header.

    Raises:
        BaseError: there is nothing.
    """
    names = prefix.names()
    if not names:
        message = f"{prefix.url} holds no files"
        raise BaseError(message, hint="name the folder of a checkpoint")
    for name, size in names.items():
        path = folder / name
        if name.endswith(_SUFFIX):
            length = int.from_bytes(prefix.get(name, 0, _HEADS), "little")
            path.write_bytes(prefix.get(name, 0, min(size, _HEADS + length)))
        elif "." in name and size < PART_BYTES:
            path.write_bytes(prefix.get(name, 0, size))
        else:
            continue
        with path.open("r+b") as stream:
            stream.truncate(size)


class S3Source:
    """A file of a base; see :class:`rankloom.apply.transfer.Source`.

    Args:
        prefix: where it is.
        name: of the file.
    """

    def __init__(self, prefix: Prefix, name: str) -> None:
        self._prefix, self._name = prefix, name

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` with the bytes at ``offset``."""
        data = self._prefix.get(self._name, offset, len(target))
        if len(data) != len(target):
            message = f"FMT008 {self._name} ends at byte {offset + len(data)}: it changed meanwhile"
            raise BaseError(message, hint="apply again when nothing writes to the base")
        target[:] = data

    def close(self) -> None:
        """Hold nothing."""


class S3Sink:
    """A file that is uploaded in parts, each as soon as it is full; it appears when it is complete.

    Args:
        prefix: where it goes.
        name: of the file.
        size: how large it will be.
    """

    def __init__(self, prefix: Prefix, name: str, size: int) -> None:
        self._client, self._size = prefix.client, size
        self._where: dict[str, Any] = {"Bucket": prefix.bucket, "Key": prefix.prefix + name}
        started = self._client.create_multipart_upload(**self._where)
        self._where["UploadId"] = started["UploadId"]
        self._lock = threading.Lock()
        self._filling: dict[int, tuple[bytearray, list[int]]] = {}
        self._etags: dict[int, str] = {}
        self._is_complete = False

    def write_at(self, data: memoryview, offset: int) -> None:
        """Keep the bytes until their part is full; then upload it."""
        while data:
            number, place = divmod(offset, PART_BYTES)
            length = min(PART_BYTES, self._size - number * PART_BYTES)
            count = min(len(data), length - place)
            with self._lock:
                buffer, left = self._filling.setdefault(number, (bytearray(length), [length]))
            buffer[place : place + count] = data[:count]
            with self._lock:
                left[0] -= count
                is_full = not left[0]
            if is_full:
                self._upload(number, buffer)
            data, offset = data[count:], offset + count

    def _upload(self, number: int, buffer: bytearray) -> None:
        sent = self._client.upload_part(**self._where, PartNumber=number + 1, Body=bytes(buffer))
        with self._lock:
            self._etags[number] = sent["ETag"]
            del self._filling[number]

    def copy_from(self, source: Source, start: int, offset: int, count: int) -> None:
        """Copy bytes from a source through memory."""
        buffer = memoryview(bytearray(count))
        source.read_into(buffer, start)
        self.write_at(buffer, offset)

    def finish(self) -> None:
        """Let the file appear."""
        parts: list[CompletedPartTypeDef] = [
            {"PartNumber": number + 1, "ETag": etag} for number, etag in sorted(self._etags.items())
        ]
        self._client.complete_multipart_upload(**self._where, MultipartUpload={"Parts": parts})
        self._is_complete = True

    def close(self) -> None:
        """Take back what was uploaded of a file that is not complete."""
        if not self._is_complete:
            self._client.abort_multipart_upload(**self._where)


class S3Output:
    """A new checkpoint in S3; the small files come last, so that it is none before.

    Args:
        prefix: where it goes.
        content: a folder here for the small files.

    Raises:
        ConflictError: there is something.
    """

    def __init__(self, prefix: Prefix, content: Path) -> None:
        self._prefix, self.content = prefix, content
        self._finished: dict[str, Finished] = {}
        if prefix.names():
            message = f"REG006 {prefix.url} exists already and is not empty"
            raise ConflictError(message, hint="name another output, or remove it first")

    def finished(self) -> dict[str, Finished]:
        """Return by name the files that are complete."""
        return dict(self._finished)

    def create(self, plan: ShardPlan) -> S3Sink:
        """Return a new file."""
        return S3Sink(self._prefix, plan.name, plan.nbytes)

    def add(self, name: str, unchanged: tuple[str, ...]) -> None:
        """Remember that a file is complete."""
        self._finished[name] = Finished(name, 0, 0, unchanged)

    def publish(self) -> None:
        """Upload the small files."""
        for path in sorted(self.content.iterdir()):
            self._prefix.put(path.name, path.read_bytes())


@contextmanager
def s3_output(url: str) -> Iterator[S3Output]:
    """Give an output to fill; its small files are uploaded when the block ends well.

    Raises:
        ConflictError: there is something.
    """
    with TemporaryDirectory(prefix="rankloom-") as folder:
        output = S3Output(Prefix(url), Path(folder))
        yield output
        output.publish()
