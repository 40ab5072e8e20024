"""One blob in parts, as S3 knows it: a multipart upload that any process may take up again.

The bucket is the only record: the open uploads of the blob's key are listed, and the oldest counts.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from rankloom.errors import RegistryError
from rankloom.registry.wire import PartTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        CompletedPartTypeDef,
        CompleteMultipartUploadRequestTypeDef,
        PartTypeDef,
    )

_ATTEMPTS = 5
_GONE = "NoSuchUpload"
# The upload holds something else than these parts, which it can never be rid of.
_SPOILT = frozenset(["InvalidPart", "InvalidPartOrder", "EntityTooSmall", "BadDigest"])

ABSENT = frozenset(["404", "NoSuchKey", "NotFound"])
# 412: the blob is there; 409: another writer of the same blob is about to finish, or to remove it.
ALREADY_THERE = frozenset(["PreconditionFailed", "ConditionalRequestConflict", "412", "409"])
_ENDED = ALREADY_THERE | {_GONE}


@dataclass(frozen=True, slots=True)
class Multipart:
    """The multipart uploads of one key.

    Attributes:
        client: for the server's own requests.
        signing: for URLs.
        bucket: name of the bucket.
        key: of the blob.
        seconds: how long a URL is good for.
        part_bytes: size of every part but the last.
    """

    client: S3Client
    signing: S3Client
    bucket: str
    key: str
    seconds: int
    part_bytes: int

    def assemble(self, size: int, parts: Sequence[str], *, replace: bool) -> tuple[PartTarget, ...]:
        """Complete the upload, or return where its missing parts go.

        Raises:
            RegistryError: others end or spoil every upload that is begun.
        """
        for _ in range(_ATTEMPTS):
            upload = self._oldest() or self._begin()
            try:
                there = self._arrived(upload, size, parts)
                if len(there) == len(parts):
                    self._complete(upload, there, parts, replace=replace)
                    return ()
            except ClientError as error:
                code = error_code(error)
                if code in _ENDED and not replace and self._is_stored():
                    return ()  # somebody else was first; what is stored is verified in any case
                if code in _SPOILT:
                    self.abort(upload)
                elif code not in _ENDED:
                    raise
                continue
            absent = [number for number in range(1, len(parts) + 1) if number not in there]
            return tuple(self._target(upload, number, size, parts) for number in absent)
        message = f"the upload of {self.key} was ended by others {_ATTEMPTS} times"
        raise RegistryError(message, hint="push again in a moment")

    def abort(self, upload: str) -> None:
        """End an upload and remove its parts."""
        try:
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=self.key, UploadId=upload)
        except ClientError as error:
            if error_code(error) != _GONE:
                raise

    def _oldest(self) -> str | None:
        pages = self.client.get_paginator("list_multipart_uploads")
        found = [
            (upload["Initiated"], upload["UploadId"])
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.key)
            for upload in page.get("Uploads", [])
            if upload["Key"] == self.key
        ]
        return min(found)[1] if found else None

    def _begin(self) -> str:
        made = self.client.create_multipart_upload(
            Bucket=self.bucket, Key=self.key, ChecksumAlgorithm="SHA256"
        )
        # Who began at the same time must come to the same answer, so that one upload is filled.
        return self._oldest() or made["UploadId"]

    def _arrived(self, upload: str, size: int, parts: Sequence[str]) -> dict[int, str]:
        """Return number and ETag of the parts that are there.

        Every URL was signed for the bytes of one digest. A store that lists digests is asked for
        them anew; of others, only who declares two lists of parts for one blob can tell.
        """
        pages = self.client.get_paginator("list_parts")
        listed = pages.paginate(Bucket=self.bucket, Key=self.key, UploadId=upload)
        return {
            part["PartNumber"]: part["ETag"]
            for page in listed
            for part in page.get("Parts", [])
            if self._is_declared(part, size, parts)
        }

    def _is_declared(self, part: PartTypeDef, size: int, parts: Sequence[str]) -> bool:
        number = part["PartNumber"]
        if number > len(parts) or part["Size"] != self._size(number, size):
            return False
        expected = checksum(parts[number - 1])
        return part.get("ChecksumSHA256", expected) == expected

    def _size(self, number: int, size: int) -> int:
        return min(self.part_bytes, size - (number - 1) * self.part_bytes)

    def _is_stored(self) -> bool:
        try:
            self.client.head_object(Bucket=self.bucket, Key=self.key)
        except ClientError as error:
            if error_code(error) in ABSENT:
                return False
            raise
        return True

    def _complete(
        self, upload: str, there: dict[int, str], parts: Sequence[str], *, replace: bool
    ) -> None:
        listed: list[CompletedPartTypeDef] = [
            {"PartNumber": number, "ETag": there[number], "ChecksumSHA256": checksum(part)}
            for number, part in enumerate(parts, 1)
        ]
        request: CompleteMultipartUploadRequestTypeDef = {
            "Bucket": self.bucket,
            "Key": self.key,
            "UploadId": upload,
            "MultipartUpload": {"Parts": listed},
        }
        if not replace:
            request["IfNoneMatch"] = "*"
        self.client.complete_multipart_upload(**request)

    def _target(self, upload: str, number: int, size: int, parts: Sequence[str]) -> PartTarget:
        """Return a URL whose signature covers length and checksum of one part."""
        length, expected = self._size(number, size), checksum(parts[number - 1])
        url = self.signing.generate_presigned_url(
            "upload_part",
            Params={
                "Bucket": self.bucket,
                "Key": self.key,
                "UploadId": upload,
                "PartNumber": number,
                "ContentLength": length,
                "ChecksumSHA256": expected,
            },
            ExpiresIn=self.seconds,
        )
        headers = {"content-length": str(length), "x-amz-checksum-sha256": expected}
        return PartTarget(number=number, url=url, headers=headers)


def checksum(digest: str) -> str:
    """Return a digest as S3 writes it: base64 of its bytes."""
    return base64.b64encode(bytes.fromhex(digest.removeprefix("sha256:"))).decode()


def error_code(error: ClientError) -> str:
    """Return what S3 calls an error."""
    return str(error.response.get("Error", {}).get("Code", ""))
