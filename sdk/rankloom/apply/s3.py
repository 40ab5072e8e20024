"""Checkpoints in S3: read by ranges, written in parts, without a copy of their tensors here.

Access is configured as for every program that uses boto3: ``AWS_ENDPOINT_URL``, profiles, roles.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rankloom.errors import BackendUnavailableError, BaseError, RefError

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

    from rankloom.apply.transfer import Source

_HEADS, _SUFFIX = 8, ".safetensors"
_CHANGED = 412  # Precondition Failed

PART_BYTES = 32 << 20
"""Of a multipart upload: 10 000 parts, as many as S3 takes, are 335 GB; each worker fills at most
two at once."""


def is_s3(place: object) -> bool:
    """Tell whether a place is an ``s3://`` URL."""
    return isinstance(place, str) and place.startswith("s3://")


@dataclass(frozen=True, slots=True)
class Listed:
    """A file in a bucket: its size, and what its bytes are known by."""

    nbytes: int
    etag: str


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

    def files(self) -> dict[str, Listed]:
        """Return the files right in this folder."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix, Delimiter="/"
        )
        found = [item for page in pages for item in page.get("Contents", [])]
        return {
            item["Key"].removeprefix(self.prefix): Listed(item["Size"], item["ETag"])
            for item in found
        }

    def get(self, name: str, start: int, count: int, etag: str | None = None) -> bytes:
        """Return ``count`` bytes of a file from ``start`` on, fewer where it ends.

        Raises:
            BaseError: it is not the file with that ETag any more.
        """
        if not count:
            return b""
        where = {"Bucket": self.bucket, "Key": self.prefix + name}
        span = f"bytes={start}-{start + count - 1}"
        condition = {"IfMatch": etag} if etag else {}
        try:
            found = self.client.get_object(**where, Range=span, **condition)
        except self.client.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != _CHANGED:
                raise
            message = f"{self.url}/{name} is another file than when the work was planned"
            raise BaseError(message, hint="apply again when nothing writes to the base") from None
        return found["Body"].read()

    def delete(self, name: str) -> None:
        """Remove a file."""
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def complete(self, name: str, token: str) -> str:
        """Let a file appear that was uploaded in parts.

        Args:
            name: of the file.
            token: what :meth:`S3Sink.finish` returned.

        Returns:
            Its ETag.
        """
        upload = json.loads(token)
        parts: list[CompletedPartTypeDef] = [
            {"PartNumber": number, "ETag": etag} for number, etag in upload["parts"]
        ]
        done = self.client.complete_multipart_upload(
            Bucket=self.bucket,
            Key=self.prefix + name,
            UploadId=upload["id"],
            MultipartUpload={"Parts": parts},
        )
        return done["ETag"]

    def abort_uploads(self) -> None:
        """Take back the parts of all files of this folder that did not appear."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=self.prefix
        )
        for upload in [item for page in pages for item in page.get("Uploads", [])]:
            self.client.abort_multipart_upload(
                Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )

    def put(self, name: str, data: bytes) -> None:
        """Write a small file."""
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=data)


def shadow(prefix: Prefix, folder: Path) -> dict[str, str]:
    """Make a folder look like a checkpoint in S3 to whoever reads headers only.

    Small files are copied; tensors are holes of the right size behind their header.

    Returns:
        The ETags of all files by their names.

    Raises:
        BaseError: there is nothing.
    """
    files = prefix.files()
    if not files:
        message = f"{prefix.url} holds no files"
        raise BaseError(message, hint="name the folder of a checkpoint")
    for name, listed in files.items():
        path, size = folder / name, listed.nbytes
        if name.endswith(_SUFFIX):
            length = int.from_bytes(prefix.get(name, 0, _HEADS, listed.etag), "little")
            path.write_bytes(prefix.get(name, 0, min(size, _HEADS + length), listed.etag))
        elif "." in name and size < PART_BYTES:
            path.write_bytes(prefix.get(name, 0, size, listed.etag))
        else:
            continue
        with path.open("r+b") as stream:
            stream.truncate(size)
    return {name: listed.etag for name, listed in files.items()}


class S3Source:
    """A file of a base; see :class:`rankloom.apply.transfer.Source`.

    Args:
        prefix: where it is.
        name: of the file.
        etag: that it must have.
    """

    def __init__(self, prefix: Prefix, name: str, etag: str | None = None) -> None:
        self._prefix, self._name, self._etag = prefix, name, etag

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` with the bytes at ``offset``."""
        data = self._prefix.get(self._name, offset, len(target), self._etag)
        if len(data) != len(target):
            message = f"FMT008 {self._name} ends at byte {offset + len(data)}: it changed meanwhile"
            raise BaseError(message, hint="apply again when nothing writes to the base")
        target[:] = data

    def close(self) -> None:
        """Hold nothing."""


class S3Sink:
    """A file that is uploaded in parts, each as soon as it is full.

    It does not appear before :meth:`Prefix.complete` is called.

    Args:
        prefix: where it goes.
        name: of the file.
        size: how large it will be.
        hashes: whether its digest is wanted; then it has to be written in order.
    """

    def __init__(self, prefix: Prefix, name: str, size: int, *, hashes: bool = False) -> None:
        self._client, self._size = prefix.client, size
        self._where: dict[str, Any] = {"Bucket": prefix.bucket, "Key": prefix.prefix + name}
        started = self._client.create_multipart_upload(**self._where)
        self._where["UploadId"] = started["UploadId"]
        self._lock = threading.Lock()
        self._filling: dict[int, tuple[bytearray, list[int]]] = {}
        self._etags: dict[int, str] = {}
        self._sha, self._hashed = hashlib.sha256() if hashes else None, 0
        self._is_complete = False

    def write_at(self, data: memoryview, offset: int) -> None:
        """Keep the bytes until their part is full; then upload it."""
        if self._sha is not None:
            assert offset == self._hashed  # noqa: S101 - Stage.in_order was asked
            self._sha.update(data)
            self._hashed += len(data)
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

    def finish(self) -> str:
        """Return what :meth:`Prefix.complete` needs."""
        self._is_complete = True
        parts = [(number + 1, etag) for number, etag in sorted(self._etags.items())]
        return json.dumps({"id": self._where["UploadId"], "parts": parts})

    def digest(self) -> str:
        """Return the digest of what was written."""
        assert self._sha is not None  # noqa: S101 - it was asked for from the beginning
        return "sha256:" + self._sha.hexdigest()

    def close(self) -> None:
        """Take back what was uploaded of a file that is not complete."""
        if not self._is_complete:
            self._client.abort_multipart_upload(**self._where)
