"""Blobs in an S3 bucket; clients send and fetch them there, not through this server."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rankloom.digest import CHUNK
from rankloom.errors import NotFoundError, RegistryError, UploadCorruptError
from rankloom.files import write_verified
from rankloom.ref import DEFAULT_NAMESPACE
from rankloom.registry.wire import PutTarget
from rankloom_server.store.interface import (
    PARTING,
    URL_SECONDS,
    Assembly,
    Parting,
    StoredBlob,
    blob_key,
    parse_key,
)
from rankloom_server.store.multipart import (
    ABSENT,
    ALREADY_THERE,
    Multipart,
    checksum,
    error_code,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from mypy_boto3_s3 import S3Client

    from rankloom.registry.wire import PartTarget
    from rankloom_server.settings import Settings


@dataclass(frozen=True, slots=True)
class S3Store:
    """A bucket, or a part of one.

    The server must enforce ``x-amz-checksum-sha256`` and ``If-None-Match`` on PUT, as AWS and
    SeaweedFS do: then no client can place wrong bytes under the digest of a blob or of a part. That
    parts make their blob, S3 cannot tell; publishing reads it.

    Attributes:
        client: for the server's own requests.
        signing: for URLs; its endpoint is the one that clients reach.
        bucket: name of the bucket.
        prefix: put in front of every key; empty or ending in ``/``.
        seconds: how long a URL is good for.
        namespace: whose blobs it gives and takes.
        parting: which blobs come in parts; S3 takes none below 5 MiB but the last.
    """

    client: S3Client
    signing: S3Client
    bucket: str
    prefix: str = ""
    seconds: int = URL_SECONDS
    namespace: str = DEFAULT_NAMESPACE
    parting: Parting = PARTING

    def inside(self, namespace: str) -> S3Store:
        """Return the store of another namespace in the same bucket."""
        return dataclasses.replace(self, namespace=namespace)

    def list_all(self) -> Iterator[StoredBlob]:
        """List the objects page by page."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{self.prefix}blobs/"
        )
        with _translated("list all blobs"):
            for page in pages:
                for found in page.get("Contents", []):
                    known = parse_key(found["Key"].removeprefix(self.prefix))
                    if known:
                        yield StoredBlob(*known, found["Size"])

    def sweep(self, before: datetime) -> int:
        """Do nothing: a broken PUT leaves nothing in S3, and of parts ``assemblies`` tells."""
        del before
        return 0

    def presign_put(self, digest: str, size: int, *, replace: bool = False) -> PutTarget:
        """Return a URL whose signature covers length, checksum and ``If-None-Match: *``."""
        expected = checksum(digest)
        parameters: dict[str, str | int] = {
            "Bucket": self.bucket,
            "Key": self._key(digest),
            "ContentLength": size,
            "ChecksumSHA256": expected,
        }
        headers = {"content-length": str(size), "x-amz-checksum-sha256": expected}
        if not replace:
            parameters["IfNoneMatch"] = headers["if-none-match"] = "*"
        url = self.signing.generate_presigned_url(
            "put_object", Params=parameters, ExpiresIn=self.seconds
        )
        return PutTarget(digest=digest, url=url, headers=headers)

    def part_bytes(self, size: int) -> int | None:
        """Say how large parts are, if a blob of this size comes in parts."""
        return self.parting.of(size)

    def assemble(
        self, digest: str, size: int, parts: Sequence[str], *, replace: bool = False
    ) -> tuple[PartTarget, ...]:
        """Fill and complete a multipart upload."""
        with _translated(f"assemble {digest}"):
            return self._multipart(self._key(digest)).assemble(size, parts, replace=replace)

    def assemblies(self) -> Iterator[Assembly]:
        """List the open multipart uploads page by page."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=f"{self.prefix}blobs/"
        )
        with _translated("list multipart uploads"):
            for page in pages:
                for found in page.get("Uploads", []):
                    known = parse_key(found["Key"].removeprefix(self.prefix))
                    if known:
                        yield Assembly(*known, found["UploadId"], found["Initiated"])

    def abandon(self, assembly: Assembly) -> None:
        """Abort a multipart upload."""
        key = self.prefix + blob_key(assembly.namespace, assembly.digest)
        with _translated(f"abort {assembly.id}"):
            self._multipart(key).abort(assembly.id)

    def _multipart(self, key: str) -> Multipart:
        return Multipart(
            self.client, self.signing, self.bucket, key, self.seconds, self.parting.size
        )

    def presign_get(self, digest: str) -> str:
        """Return a signed URL."""
        parameters = {"Bucket": self.bucket, "Key": self._key(digest)}
        return self.signing.generate_presigned_url(
            "get_object", Params=parameters, ExpiresIn=self.seconds
        )

    def size(self, digest: str) -> int | None:
        """Ask for the object's head."""
        with _translated(f"size of {digest}"):
            try:
                head = self.client.head_object(Bucket=self.bucket, Key=self._key(digest))
            except ClientError as error:
                if error_code(error) in ABSENT:
                    return None
                raise
            return head["ContentLength"]

    def read(self, digest: str) -> Iterator[bytes]:
        """Stream the object."""
        with _translated(f"read {digest}"):
            try:
                found = self.client.get_object(Bucket=self.bucket, Key=self._key(digest))
            except ClientError as error:
                if error_code(error) not in ABSENT:
                    raise
                message = f"blob {digest} is not in the store"
                raise NotFoundError(message, hint="push the adapter again") from error
            with contextlib.closing(found["Body"]) as body:
                yield from body.iter_chunks(CHUNK)

    def put(self, digest: str, size: int, chunks: Iterable[bytes]) -> None:
        """Check the chunks on this machine first, then send them."""
        with tempfile.TemporaryDirectory() as folder:
            checked = Path(folder) / "blob"
            write_verified(chunks, checked, digest=digest, size=size, error=UploadCorruptError)
            with _translated(f"put {digest}"), checked.open("rb") as stream:
                try:
                    self.client.put_object(
                        Bucket=self.bucket,
                        Key=self._key(digest),
                        Body=stream,
                        ContentLength=size,
                        ChecksumSHA256=checksum(digest),
                        IfNoneMatch="*",
                    )
                except ClientError as error:
                    if error_code(error) not in ALREADY_THERE:
                        raise

    def delete(self, digest: str) -> None:
        """Remove the object."""
        with _translated(f"delete {digest}"):
            self.client.delete_object(Bucket=self.bucket, Key=self._key(digest))

    def file(self, digest: str) -> Path | None:
        """Return ``None``: objects are on another machine."""
        return None

    def _key(self, digest: str) -> str:
        return self.prefix + blob_key(self.namespace, digest)


def open_store(settings: Settings) -> S3Store:
    """Return the store that the settings name; nothing is connected yet."""
    place = urlsplit(settings.store)
    prefix = place.path.strip("/")
    return S3Store(
        client=_client(settings, settings.s3_endpoint),
        signing=_client(settings, settings.s3_public_endpoint or settings.s3_endpoint),
        bucket=place.netloc,
        prefix=f"{prefix}/" if prefix else "",
        seconds=settings.url_seconds,
    )


def _client(settings: Settings, endpoint: str | None) -> S3Client:
    secret = settings.s3_secret_key
    config = Config(
        signature_version="s3v4",
        # Servers other than AWS are rarely reachable under one host name per bucket.
        s3={"addressing_style": "path" if endpoint else "auto"},
        retries={"mode": "standard", "max_attempts": 4},
        connect_timeout=5,
        # Twice within the patience of who asks the registry: a second connection may still answer.
        read_timeout=20,
        # A default checksum would add headers that presigned URLs then demand from every client.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=config,
    )


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        message = f"the blob store failed: {what}: {error}"
        raise RegistryError(message, hint="try again; is the store running?") from error
