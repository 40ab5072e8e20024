"""Checkpoints in the bucket of the tests."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from servers import BUCKET

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_s3 import S3Client


def contents(client: S3Client, url: str) -> dict[str, bytes]:
    prefix = url.removeprefix(f"s3://{BUCKET}/") + "/"
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    keys = [item["Key"] for item in listed]
    return {
        key.removeprefix(prefix): client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        for key in keys
    }


def local(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def new_url() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def uploaded(client: S3Client, folder: Path) -> str:
    url = new_url()
    for path in folder.iterdir():
        key = url.removeprefix(f"s3://{BUCKET}/") + f"/{path.name}"
        client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
    return url
