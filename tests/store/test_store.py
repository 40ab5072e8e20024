"""One contract for every store, by the URLs that real clients use."""

import os
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3
from pydantic import SecretStr

from rankloom import digest as digests
from rankloom.errors import IntegrityError, NotFoundError, UploadCorruptError
from rankloom.registry import http, sending, transfer
from rankloom_server.settings import Settings
from rankloom_server.store import s3
from rankloom_server.store.interface import Store

BLOB = os.urandom(3 << 20)  # several chunks
DIGEST = digests.of_bytes(BLOB)
ABSENT = digests.of_bytes(b"nobody stored this")


def _upload(store: Store, tmp_path: Path, data: bytes = BLOB) -> None:
    source = tmp_path / "source"
    source.write_bytes(data)
    digest = digests.of_bytes(data)
    assert sending.put(source, len(data), store.presign_put(digest, len(data))) is None


def _put(store: Store, data: bytes, *, size: int = len(BLOB), **headers: str) -> int:
    """Send bytes to a signed URL for BLOB; return the status."""
    target = store.presign_put(DIGEST, size)
    sent = {**target.headers, "content-length": str(len(data)), **headers}
    return urllib3.request("PUT", target.url, body=data, headers=sent, retries=False).status


# --- every store -------------------------------------------------------------------------------


def test_a_blob_that_a_client_sent_can_be_read_on_both_sides(store: Store, tmp_path: Path) -> None:
    assert store.size(DIGEST) is None
    _upload(store, tmp_path)
    assert store.size(DIGEST) == len(BLOB)
    assert b"".join(store.read(DIGEST)) == BLOB
    target = tmp_path / "target"
    transfer.get(store.presign_get(DIGEST), target, digest=DIGEST, size=len(BLOB))
    assert target.read_bytes() == BLOB


def test_a_blob_is_read_in_chunks(store: Store) -> None:
    store.put(DIGEST, len(BLOB), [BLOB])
    chunks = list(store.read(DIGEST))
    assert max(map(len, chunks)) <= digests.CHUNK
    assert b"".join(chunks) == BLOB


def test_sending_a_blob_twice_is_fine(store: Store, tmp_path: Path) -> None:
    _upload(store, tmp_path)
    _upload(store, tmp_path)
    store.put(DIGEST, len(BLOB), [BLOB])
    assert b"".join(store.read(DIGEST)) == BLOB


def test_an_empty_blob_is_a_blob(store: Store, tmp_path: Path) -> None:
    _upload(store, tmp_path, b"")
    empty = digests.of_bytes(b"")
    assert store.size(empty) == 0
    assert b"".join(store.read(empty)) == b""
    store.delete(empty)


@pytest.mark.parametrize("data", [BLOB[:-1], BLOB + b"x", b"x" + BLOB[1:], b""])
def test_the_servers_own_put_keeps_no_wrong_bytes(store: Store, data: bytes) -> None:
    with pytest.raises(UploadCorruptError, match="REG001"):
        store.put(DIGEST, len(BLOB), [data[: 1 << 20], data[1 << 20 :]])
    assert store.size(DIGEST) is None


def test_what_is_not_there_is_not_there(store: Store, tmp_path: Path) -> None:
    assert store.size(ABSENT) is None
    assert store.file(ABSENT) is None
    store.delete(ABSENT)
    with pytest.raises(NotFoundError, match=ABSENT):
        list(store.read(ABSENT))
    with pytest.raises(IntegrityError, match="lost"):
        transfer.get(store.presign_get(ABSENT), tmp_path / "x", digest=ABSENT, size=1)


def test_a_deleted_blob_is_gone(store: Store, tmp_path: Path) -> None:
    _upload(store, tmp_path)
    store.delete(DIGEST)
    assert store.size(DIGEST) is None


def test_a_file_is_the_blob_itself(store: Store) -> None:
    store.put(DIGEST, len(BLOB), [BLOB])
    file = store.file(DIGEST)
    assert file is None or file.read_bytes() == BLOB


def test_namespaces_share_no_blob(store: Store, tmp_path: Path) -> None:
    _upload(store, tmp_path)
    other = store.inside("other")
    assert other.size(DIGEST) is None
    assert other.file(DIGEST) is None
    with pytest.raises(NotFoundError):
        list(other.read(DIGEST))
    other.delete(DIGEST)
    assert store.size(DIGEST) == len(BLOB)
    other.put(DIGEST, len(BLOB), [BLOB])
    found = {(blob.namespace, blob.size) for blob in store.list_all() if blob.digest == DIGEST}
    assert found == {("default", len(BLOB)), ("other", len(BLOB))}
    other.delete(DIGEST)


def test_damaged_bytes_can_be_replaced(store: Store, tmp_path: Path) -> None:
    _upload(store, tmp_path)
    source = tmp_path / "again"
    source.write_bytes(BLOB)
    target = store.presign_put(DIGEST, len(BLOB), replace=True)
    assert sending.put(source, len(BLOB), target) is None
    assert b"".join(store.read(DIGEST)) == BLOB


def test_many_blobs_are_listed(store: Store) -> None:
    # More than an S3 server names in one answer would take minutes; pages are boto3's own.
    made = [digests.of_bytes(b"%d" % number) for number in range(30)]
    for number, digest in enumerate(made):
        data = b"%d" % number
        store.inside("many").put(digest, len(data), [data])
    assert {blob.digest for blob in store.list_all() if blob.namespace == "many"} == set(made)
    for digest in made:
        store.inside("many").delete(digest)


# --- stores that clients reach over a network --------------------------------------------------


def test_a_corrupted_body_is_refused(strict: Store) -> None:
    assert 400 <= _put(strict, b"x" + BLOB[1:]) < 500
    assert strict.size(DIGEST) is None


@pytest.mark.parametrize("data", [BLOB[:-1], BLOB + b"x", b""])
def test_a_body_of_another_length_is_refused(strict: Store, data: bytes) -> None:
    assert 400 <= _put(strict, data) < 500
    assert strict.size(DIGEST) is None


def test_a_forged_signature_is_refused(strict: Store, tmp_path: Path) -> None:
    target = strict.presign_put(DIGEST, len(BLOB))
    last = target.url[-1]
    forged = target.model_copy(update={"url": target.url[:-1] + ("0" if last != "0" else "1")})
    source = tmp_path / "source"
    source.write_bytes(BLOB)
    refusal = sending.put(source, len(BLOB), forged)
    assert "403" in str(refusal)
    assert strict.size(DIGEST) is None


def test_a_signature_for_one_blob_opens_no_other(strict: Store) -> None:
    strict.put(DIGEST, len(BLOB), [BLOB])
    url = strict.presign_get(ABSENT)
    swapped = url.replace(ABSENT[7:9] + "/" + ABSENT[7:], DIGEST[7:9] + "/" + DIGEST[7:])
    assert swapped != url
    assert urllib3.request("GET", swapped, retries=False).status == 403


def test_a_signature_for_one_namespace_opens_no_other(strict: Store) -> None:
    strict.put(DIGEST, len(BLOB), [BLOB])
    url = strict.inside("other").presign_get(DIGEST)
    swapped = url.replace("/blobs/other/", "/blobs/default/")
    assert swapped != url
    assert urllib3.request("GET", swapped, retries=False).status == 403


def test_a_signature_for_reading_does_not_write(strict: Store) -> None:
    url = strict.presign_get(DIGEST)
    assert urllib3.request("PUT", url, body=BLOB, retries=False).status == 403
    assert strict.size(DIGEST) is None


def test_without_a_signature_nothing_is_read(strict: Store) -> None:
    strict.put(DIGEST, len(BLOB), [BLOB])
    bare = urlsplit(strict.presign_get(DIGEST))._replace(query="").geturl()
    assert 400 <= urllib3.request("GET", bare, retries=False).status < 500


def test_an_expired_url_is_refused(brief: Store) -> None:
    brief.put(DIGEST, len(BLOB), [BLOB])
    url, target = brief.presign_get(DIGEST), brief.presign_put(ABSENT, 1)
    time.sleep(2.1)  # both clocks count whole seconds
    assert urllib3.request("GET", url, retries=False).status == 403
    status = urllib3.request(
        "PUT", target.url, body=b"x", headers=target.headers, retries=False
    ).status
    assert status == 403
    brief.delete(DIGEST)


def test_a_range_of_a_blob_can_be_read(strict: Store) -> None:
    strict.put(DIGEST, len(BLOB), [BLOB])
    url = strict.presign_get(DIGEST)
    found = urllib3.request("GET", url, headers={"Range": "bytes=10-19"}, retries=False)
    assert (found.status, found.data) == (206, BLOB[10:20])


def test_a_second_writer_changes_nothing(strict: Store) -> None:
    assert _put(strict, BLOB) == 200
    # S3 refuses by the signed header, our own server takes the same bytes again.
    assert _put(strict, BLOB) in {200, 412}
    assert _put(strict, b"x" + BLOB[1:]) in {400, 412, 422}
    assert b"".join(strict.read(DIGEST)) == BLOB


def test_a_store_that_falls_silent_is_asked_again_before_the_client_gives_up(
    tmp_path: Path,
) -> None:
    secret = SecretStr("secret")
    there = Settings(
        data_dir=tmp_path, store="s3://bucket", s3_access_key="key", s3_secret_key=secret
    )
    waits = s3.open_store(there).client.meta.config.read_timeout
    patience = http._TIMEOUT.read
    assert patience is not None
    assert 2 * waits < patience
