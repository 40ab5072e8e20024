"""Bases and outputs in a real S3 server, without a copy here."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.exceptions import ResponseStreamingError
from botocore.response import StreamingBody

from lowrank_cases import Case, part, write_base
from rankloom.apply import s3, s3_files
from rankloom.apply.s3_output import S3Output
from rankloom.apply.staged import S3Stage
from rankloom.composition import Composition, compose
from rankloom.errors import (
    BackendUnavailableError,
    BaseError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    RefError,
)
from s3_cases import contents, local, new_url, uploaded
from servers import BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

    from rankloom.apply.staged import Staged
    from rankloom.apply.steps import ShardPlan
    from rankloom.apply.transfer import Source

pytestmark = [
    pytest.mark.services,
    pytest.mark.filterwarnings("ignore:BASE001:rankloom.errors.RankloomWarning"),
]


@pytest.fixture
def composition(tmp_path: Path) -> Composition:
    write_base(tmp_path / "base", shards=2)
    Case().write(tmp_path / "adapter")
    return compose([part(tmp_path / "adapter")])


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
    assert report.replayed == report.targets
    assert contents(client, target) == local(tmp_path / "out")
    assert report.nbytes == sum(map(len, local(tmp_path / "out").values()))
    composition.apply_to(url, tmp_path / "here", dtype=dtype)
    assert local(tmp_path / "here") == local(tmp_path / "out")


def test_a_base_in_s3_keeps_the_files_that_a_folder_keeps(
    tmp_path: Path, client: S3Client, composition: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_files, "PART_BYTES", 5 << 20)
    base = tmp_path / "base"
    (base / "LICENSE").write_text("free")
    (base / "tokenizer.json").write_bytes(bytes(range(256)) * (12 << 12))
    for name in (".gitattributes", "rankloom.json", "model.gguf"):
        (base / name).write_bytes(b"stays behind")
    url, target = uploaded(client, base), new_url()
    composition.apply_to(base, tmp_path / "out")
    composition.apply_to(url, target)
    assert {"LICENSE", "tokenizer.json"} <= local(tmp_path / "out").keys()
    assert contents(client, target) == local(tmp_path / "out")


def test_a_header_that_is_too_long_is_not_fetched(
    client: S3Client, composition: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked, real = new_url(), [], s3.Prefix.get
    data = (200 << 20).to_bytes(8, "little") + bytes(100)
    key = url.removeprefix(f"s3://{BUCKET}/") + "/model.safetensors"
    client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def get(prefix: s3.Prefix, name: str, start: int, count: int, etag: str) -> bytes:
        asked.append(count)
        return real(prefix, name, start, count, etag)

    monkeypatch.setattr(s3.Prefix, "get", get)
    with pytest.raises(BaseError, match="FMT002"):
        composition.apply_to(url, new_url())
    assert asked == [8]


def test_several_parts_are_one_file(
    tmp_path: Path,
    client: S3Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_files, "PART_BYTES", 5 << 20)  # S3's smallest
    url, size = new_url(), 12 << 20
    data = bytes(range(256)) * (size // 256)
    prefix = s3.Prefix(url)
    sink = s3_files.S3Sink(prefix, "a", size)
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


@pytest.mark.parametrize("on", ["threads", "processes"])
def test_the_digest_is_that_of_folders(
    tmp_path: Path, client: S3Client, composition: Composition, on: str
) -> None:
    url, target = uploaded(client, tmp_path / "base"), new_url()
    here = composition.apply_to(tmp_path / "base", tmp_path / "out", digest=True)
    there = composition.apply_to(url, target, on=on, workers=2, digest=True)
    assert there.digest == here.digest
    assert contents(client, target) == local(tmp_path / "out")
    assert not client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_a_file_is_hashed_in_order_however_many_workers_there_are(
    tmp_path: Path, client: S3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(tmp_path / "base", shards=1)
    Case().write(tmp_path / "adapter")
    composition = compose([part(tmp_path / "adapter")])
    real = s3_files.S3Sink.write_at

    def write_at(sink: s3_files.S3Sink, data: memoryview, offset: int) -> None:
        time.sleep(0.01 if offset else 0.2)  # time enough for another worker to overtake
        real(sink, data, offset)

    monkeypatch.setattr(s3_files.S3Sink, "write_at", write_at)
    here = composition.apply_to(tmp_path / "base", tmp_path / "out", digest=True)
    there = composition.apply_to(tmp_path / "base", new_url(), workers=4, digest=True)
    assert here.digest == there.digest


def interrupted(composition: Composition, base: str, target: str) -> None:
    """Stop a run after its first file."""
    real = S3Output.add

    def add(output: S3Output, staged: Staged) -> None:
        if output.finished():
            raise KeyboardInterrupt
        real(output, staged)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Output, "add", add)
        with pytest.raises(KeyboardInterrupt):
            composition.apply_to(base, target)


def test_a_run_that_was_interrupted_is_taken_up(
    tmp_path: Path,
    client: S3Client,
    composition: Composition,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, target = uploaded(client, tmp_path / "base"), new_url()
    interrupted(composition, url, target)
    [kept] = [name for name in contents(client, target) if name.endswith(".safetensors")]
    planned = []
    real = S3Stage.create

    def create(stage: S3Stage, plan: ShardPlan) -> s3_files.S3Sink:
        planned.append(plan.name)
        return real(stage, plan)

    monkeypatch.setattr(S3Stage, "create", create)
    composition.apply_to(url, target)
    assert kept not in planned
    assert len(planned) == 1
    composition.apply_to(tmp_path / "base", tmp_path / "out")
    assert contents(client, target) == local(tmp_path / "out")
    assert not client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_nothing_else_is_taken_over(
    tmp_path: Path, client: S3Client, composition: Composition
) -> None:
    url, target = uploaded(client, tmp_path / "base"), new_url()
    interrupted(composition, url, target)
    other = compose(composition.parts, [0.5])
    other.apply_to(url, target)
    other.apply_to(tmp_path / "base", tmp_path / "out")
    assert contents(client, target) == local(tmp_path / "out")


def test_what_nobody_left_is_not_removed(
    tmp_path: Path, client: S3Client, composition: Composition
) -> None:
    url, target = uploaded(client, tmp_path / "base"), new_url()
    interrupted(composition, url, target)
    key = target.removeprefix(f"s3://{BUCKET}/") + "/mine"
    client.put_object(Bucket=BUCKET, Key=key, Body=b"mine")
    before = contents(client, target)
    with pytest.raises(ConflictError):
        composition.apply_to(url, target)
    assert contents(client, target) == before


def test_an_error_leaves_nothing(
    tmp_path: Path, client: S3Client, composition: Composition
) -> None:
    def stop(done: int, _: int) -> None:
        if done > max(path.stat().st_size for path in (tmp_path / "base").iterdir()):
            raise ValueError

    target = new_url()
    with pytest.raises(ValueError):  # noqa: PT011 - the caller's own
        composition.apply_to(tmp_path / "base", target, progress=stop)
    assert not contents(client, target)
    assert not client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_a_base_that_is_written_to_meanwhile_is_refused(
    tmp_path: Path, client: S3Client, composition: Composition
) -> None:
    url = uploaded(client, tmp_path / "base")
    name = min(path.name for path in (tmp_path / "base").glob("*.safetensors"))

    def overwrite(*_: int) -> None:
        data = bytearray((tmp_path / "base" / name).read_bytes())
        data[-1] ^= 1
        key = url.removeprefix(f"s3://{BUCKET}/") + f"/{name}"
        client.put_object(Bucket=BUCKET, Key=key, Body=bytes(data))

    with pytest.raises(BaseError, match="another file than when the work was planned"):
        composition.apply_to(url, new_url(), workers=1, progress=overwrite)


def test_what_was_uploaded_wrong_is_found(
    tmp_path: Path,
    client: S3Client,
    composition: Composition,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, target = uploaded(client, tmp_path / "base"), new_url()
    real = s3_files.S3Sink.write_at

    def write_at(sink: s3_files.S3Sink, data: memoryview, offset: int) -> None:
        real(sink, memoryview(bytes(data)[::-1]), offset)

    def copy_from(
        sink: s3_files.S3Sink, source: Source, start: int, offset: int, count: int
    ) -> None:
        buffer = memoryview(bytearray(count))
        source.read_into(buffer, start)
        real(sink, buffer, offset)

    monkeypatch.setattr(s3_files.S3Sink, "write_at", write_at)
    monkeypatch.setattr(s3_files.S3Sink, "copy_from", copy_from)  # headers stay as they are
    with pytest.raises(IntegrityError, match="MRG009"):
        composition.apply_to(url, target)
    assert not contents(client, target)


def test_an_answer_that_breaks_off_is_asked_for_again(
    tmp_path: Path,
    client: S3Client,
    composition: Composition,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, target = uploaded(client, tmp_path / "base"), new_url()
    real, asked = StreamingBody.read, threading.local()

    def read(body: StreamingBody, *arguments: int) -> bytes:
        asked.count = getattr(asked, "count", 0) + 1
        if asked.count % 4:  # three times out of four
            raise ResponseStreamingError(error="the line is cut")
        return real(body, *arguments)

    monkeypatch.setattr(StreamingBody, "read", read)
    composition.apply_to(url, target, workers=1)
    assert asked.count >= 4
    monkeypatch.setattr(StreamingBody, "read", real)
    composition.apply_to(tmp_path / "base", tmp_path / "out")
    assert contents(client, target) == local(tmp_path / "out")


@pytest.mark.parametrize(
    ("variable", "value", "error", "match"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", BackendUnavailableError, "S3 refuses s3://"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", BackendUnavailableError, "cannot be reached"),
        ("", "", NotFoundError, "there is no s3://"),
    ],
)
def test_what_s3_refuses_is_said_in_words(
    client: S3Client,
    composition: Composition,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    error: type[Exception],
    match: str,
) -> None:
    if variable:
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it has read the environment once
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    url = new_url() if variable else f"s3://{BUCKET}-other/base"
    with pytest.raises(error, match=match):
        composition.apply_to(url, new_url())
