"""Bases and outputs in a real S3 server, without a copy here."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import boto3
import pytest

from lowrank_cases import Case, part, write_base
from rankloom.apply import s3
from rankloom.composition import Composition, compose
from rankloom.errors import BaseError, ConflictError, RefError
from servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

pytestmark = [
    pytest.mark.services,
    pytest.mark.filterwarnings("ignore:BASE001:rankloom.errors.RankloomWarning"),
]


@pytest.fixture
def client(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Client:
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweedfs.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return boto3.client("s3")


@pytest.fixture
def composition(tmp_path: Path) -> Composition:
    write_base(tmp_path / "base", shards=2)
    Case().write(tmp_path / "adapter")
    return compose([part(tmp_path / "adapter")])


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


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_from_s3_to_s3_the_bytes_are_those_of_folders(
    tmp_path: Path,
    client: S3Client,
    composition: Composition,
    dtype: str | None,
) -> None:
    composition.apply_to(tmp_path / "base", tmp_path / "out", dtype=dtype)
    url, target = uploaded(client, tmp_path / "base"), new_url()
    report = composition.apply_to(url, target, dtype=dtype)
    assert contents(client, target) == local(tmp_path / "out")
    assert report.nbytes == sum(map(len, local(tmp_path / "out").values()))
    composition.apply_to(url, tmp_path / "here", dtype=dtype)
    assert local(tmp_path / "here") == local(tmp_path / "out")


def test_several_parts_are_one_file(
    tmp_path: Path,
    client: S3Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)  # S3's smallest
    url, size = new_url(), 12 << 20
    data = bytes(range(256)) * (size // 256)
    prefix = s3.Prefix(url)
    sink = s3.S3Sink(prefix, "a", size)
    for start in reversed(range(0, size, 3 << 20)):
        sink.write_at(memoryview(data)[start : start + (3 << 20)], start)
    token = sink.finish()
    sink.close()
    assert not contents(client, url)
    prefix.complete("a", token)
    assert contents(client, url) == {"a": data}


def test_a_failure_leaves_no_file(
    tmp_path: Path,
    client: S3Client,
    composition: Composition,
) -> None:
    target = new_url()

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        composition.apply_to(tmp_path / "base", target, progress=stop)
    assert not {name for name in contents(client, target) if name.endswith(".json")}
    assert not client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


@pytest.mark.parametrize(
    ("base", "target", "error"),
    [
        (lambda _: f"s3://{BUCKET}", lambda _: new_url(), RefError),
        (lambda _: new_url(), lambda _: new_url(), BaseError),
        (lambda base: base, lambda base: base, ConflictError),
    ],
)
def test_refusals(
    tmp_path: Path,
    client: S3Client,
    composition: Composition,
    base: Callable[[str], str],
    target: Callable[[str], str],
    error: type[Exception],
) -> None:
    url = uploaded(client, tmp_path / "base")
    with pytest.raises(error):
        composition.apply_to(base(url), target(url))
