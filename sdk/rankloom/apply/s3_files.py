"""Files in S3: read by ranges, written in parts, without a copy of their tensors here."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import TYPE_CHECKING, Any

from rankloom.apply.folder import is_companion
from rankloom.apply.s3 import answered
from rankloom.errors import BaseError
from rankloom.files import on_disk
from rankloom.tensorfile.header import LENGTH_BYTES, header_length

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.apply.s3 import Listed, Prefix
    from rankloom.apply.transfer import Source

_SUFFIX = ".safetensors"

PART_BYTES = 32 << 20
"""Of a multipart upload: 10 000 parts, as many as S3 takes, are 335 GB; each worker fills at most
two at once."""


def shadow(prefix: Prefix, folder: Path) -> dict[str, str]:
    """Make a folder look like a checkpoint in S3 to whoever reads headers only.

    Files beside the weights are copied; tensors are holes of the right size behind their header,
    and other files are holes altogether.

    Returns:
        The ETags of all files by their names.

    Raises:
        BaseError: there is nothing, or a header is too long.
        DiskError: there is no room for the copies.
    """
    files = prefix.files()
    if not files:
        message = f"{prefix.url} holds no files"
        raise BaseError(message, hint="name the folder of a checkpoint")
    for name, listed in files.items():
        path, size, count = folder / name, listed.nbytes, 0
        if name.endswith(_SUFFIX):
            start = prefix.get(name, 0, min(LENGTH_BYTES, size), listed.etag)
            count = LENGTH_BYTES + header_length(start, size, path, error=BaseError)
        elif is_companion(name):
            count = size
        _fetch(prefix, path, count, listed)
    return {name: listed.etag for name, listed in files.items()}


def _fetch(prefix: Prefix, path: Path, count: int, listed: Listed) -> None:
    """Copy the first ``count`` bytes of a file, and leave a hole in the place of the others."""
    with on_disk(path), path.open("wb") as stream:
        for start in range(0, count, PART_BYTES):
            length = min(PART_BYTES, count - start)
            stream.write(prefix.get(path.name, start, length, listed.etag))
        stream.truncate(listed.nbytes)


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
        self._prefix, self._name, self._size = prefix, name, size
        self._where: dict[str, Any] = {"Bucket": prefix.bucket, "Key": prefix.prefix + name}
        self._place = f"{prefix.url}/{name}"
        with answered(self._place):
            started = prefix.client.create_multipart_upload(**self._where)
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
        with answered(self._place):
            sent = self._prefix.client.upload_part(
                **self._where, PartNumber=number + 1, Body=bytes(buffer)
            )
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
            self._prefix.abort(self._name, self._where["UploadId"])
