"""Folders in S3.

Access is configured as for every program that uses boto3: ``AWS_ENDPOINT_URL``, profiles, roles.
"""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rankloom.errors import (
    BackendUnavailableError,
    BaseError,
    ConflictError,
    NotFoundError,
    RefError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        CompletedPartTypeDef,
        GetObjectRequestTypeDef,
        PutObjectRequestTypeDef,
    )

_CHANGED = 412  # Precondition Failed
_TRIES = 4
_ALONE = "let one apply at a time write there, and no rule of the bucket end uploads meanwhile"
_ACCESS = "check AWS_ENDPOINT_URL, the credentials, and what they allow"


def is_s3(place: object) -> bool:
    """Tell whether a place is an ``s3://`` URL."""
    return isinstance(place, str) and place.startswith("s3://")


@contextmanager
def answered(place: str) -> Iterator[None]:
    """Say in words what S3 refuses.

    Args:
        place: what is asked for.

    Raises:
        NotFoundError: it is not there.
        ConflictError: somebody else has replaced it, or taken back the parts of its upload.
        BackendUnavailableError: S3 does not answer, or does not allow it.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code")
        if code == "NoSuchUpload":
            message = f"the upload of {place} was taken back by somebody else: {error}"
            raise ConflictError(message, hint=_ALONE) from error
        if code in {"PreconditionFailed", "ConditionalRequestConflict"}:
            message = f"{place} was replaced by somebody else: {error}"
            raise ConflictError(message, hint=_ALONE) from error
        if code in {"NoSuchKey", "NoSuchBucket"}:
            message = f"there is no {place}: {error}"
            raise NotFoundError(message, hint="check the bucket and the prefix") from error
        message = f"S3 refuses {place}: {error}"
        raise BackendUnavailableError(message, hint=_ACCESS) from error
    except BotoCoreError as error:
        message = f"{place} cannot be reached: {error}"
        raise BackendUnavailableError(message, hint=_ACCESS) from error


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
        with answered(url):
            self.client: S3Client = boto3.client("s3")

    def files(self) -> dict[str, Listed]:
        """Return the files right in this folder."""
        with answered(self.url):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix, Delimiter="/"
            )
            found = [item for page in pages for item in page.get("Contents", [])]
        return {
            item["Key"].removeprefix(self.prefix): Listed(item["Size"], item["ETag"])
            for item in found
            if item["Key"] != self.prefix  # an empty object stands for the folder itself
        }

    def get(self, name: str, start: int, count: int, etag: str | None = None) -> bytes:
        """Return ``count`` bytes of a file from ``start`` on, fewer where it ends.

        Raises:
            BaseError: it is not the file with that ETag any more.
        """
        from botocore.exceptions import HTTPClientError

        with answered(f"{self.url}/{name}"):
            for _ in range(_TRIES - 1):
                # boto3 repeats a request that fails, but not one whose answer breaks off.
                with suppress(HTTPClientError):
                    return self._get(name, start, count, etag)
            return self._get(name, start, count, etag)

    def _get(self, name: str, start: int, count: int, etag: str | None) -> bytes:
        if not count:
            return b""
        asked: GetObjectRequestTypeDef = {"Bucket": self.bucket, "Key": self.prefix + name}
        asked["Range"] = f"bytes={start}-{start + count - 1}"
        if etag:
            asked["IfMatch"] = etag
        try:
            found = self.client.get_object(**asked)
        except self.client.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != _CHANGED:
                raise
            message = f"{self.url}/{name} is another file than when the work was planned"
            raise BaseError(message, hint="apply again when nothing writes to the base") from None
        return found["Body"].read()

    def delete(self, name: str) -> None:
        """Remove a file."""
        with answered(f"{self.url}/{name}"):
            self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def complete(self, name: str, token: str) -> str:
        """Let a file appear that was uploaded in parts.

        Args:
            name: of the file.
            token: what :meth:`rankloom.apply.s3_files.S3Sink.finish` returned.

        Returns:
            Its ETag.
        """
        upload = json.loads(token)
        parts: list[CompletedPartTypeDef] = [
            {"PartNumber": number, "ETag": etag} for number, etag in upload["parts"]
        ]
        with answered(f"{self.url}/{name}"):
            done = self.client.complete_multipart_upload(
                Bucket=self.bucket,
                Key=self.prefix + name,
                UploadId=upload["id"],
                MultipartUpload={"Parts": parts},
            )
        return done["ETag"]

    def drop(self, name: str, token: str) -> None:
        """Take back a file that is not to appear; arguments as of :meth:`complete`."""
        self.abort(name, json.loads(token)["id"])

    def uploads(self) -> set[tuple[str, str]]:
        """Return name and upload's id of the files right in this folder that did not appear."""
        with answered(self.url):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=self.prefix, Delimiter="/"
            )
            found = [item for page in pages for item in page.get("Uploads", [])]
        named = {(item["Key"].removeprefix(self.prefix), item["UploadId"]) for item in found}
        return {(name, upload) for name, upload in named if "/" not in name}

    def abort(self, name: str, upload: str) -> None:
        """Take back the parts of a file that did not appear; they may be gone already."""
        with suppress(ConflictError), answered(f"{self.url}/{name}"):
            self.client.abort_multipart_upload(
                Bucket=self.bucket, Key=self.prefix + name, UploadId=upload
            )

    def put(self, name: str, data: bytes | BinaryIO, replaced: str | None = None) -> str:
        """Write a small file; return its ETag.

        Args:
            name: of the file.
            data: what it will hold.
            replaced: ETag that the file must have now; ``None``: any, or none.

        Raises:
            ConflictError: it is another file by now.
        """
        asked: PutObjectRequestTypeDef = {"Bucket": self.bucket, "Key": self.prefix + name}
        asked["Body"] = data
        if replaced:
            asked["IfMatch"] = replaced
        with answered(f"{self.url}/{name}"):
            return self.client.put_object(**asked)["ETag"]
