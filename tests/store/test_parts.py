"""Blobs in parts, one contract for every store that clients reach over a network."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import urllib3
from botocore.exceptions import ClientError

from rankloom import digest as digests
from rankloom.errors import NotFoundError, RegistryError, UploadCorruptError
from rankloom.registry import parts, sending
from rankloom.registry.connection import Span
from rankloom.registry.tally import Tally
from rankloom.registry.wire import LargeBlob, MissingParts, PartsRequest, PartTarget
from rankloom_server.store.interface import Assembly, Parting, Store
from rankloom_server.store.local import LocalStore
from rankloom_server.store.s3 import S3Store

PART = 5 << 20  # S3 takes no smaller ones
BLOB = os.urandom(2 * PART + 12345)
DIGEST = digests.of_bytes(BLOB)
PARTS = [digests.of_bytes(BLOB[begin : begin + PART]) for begin in range(0, len(BLOB), PART)]
LARGE = LargeBlob(digest=DIGEST, part_bytes=PART)


class Door:
    """As much of a registry as sending parts needs; after a round it may be disturbed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.asked: list[tuple[int, ...]] = []

    def assemble(self, upload_id: str, digest: str, request: PartsRequest) -> MissingParts:
        missing = self.store.assemble(digest, len(BLOB), request.parts)
        self.asked.append(tuple(part.number for part in missing))
        return MissingParts(missing=missing)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(BLOB)
    return path


MakeStore = Callable[..., Store]


def missing(store: Store, declared: list[str] = PARTS) -> dict[int, PartTarget]:
    return {part.number: part for part in store.assemble(DIGEST, len(BLOB), declared)}


def put(source: Path, target: PartTarget) -> bool:
    begin, size = (target.number - 1) * PART, source.stat().st_size
    span = Span(begin, min(PART, size - begin))
    return sending.put_part(source, span, target, Tally(size, None)) is None


def send(door: Door, source: Path, tally: Tally | None = None) -> None:
    tally = tally or Tally(len(BLOB), None)
    parts.send(door, "upload", source, len(BLOB), LARGE, tally)  # type: ignore[arg-type]


def raw(target: PartTarget, data: bytes) -> int:
    headers = {**target.headers, "content-length": str(len(data))}
    return urllib3.request("PUT", target.url, body=data, headers=headers, retries=False).status


def mine(store: Store) -> list[Assembly]:
    return [assembly for assembly in store.assemblies() if assembly.digest == DIGEST]


# --- what goes well ----------------------------------------------------------------------------


def test_parts_make_the_blob(networked: Store, source: Path) -> None:
    counted: list[int] = []
    door = Door(networked)
    send(door, source, Tally(len(BLOB), lambda done, _: counted.append(done)))
    assert door.asked == [(1, 2, 3), ()]
    assert b"".join(networked.read(DIGEST)) == BLOB
    assert mine(networked) == []
    assert counted[-1] == len(BLOB) == max(counted)


def test_another_process_goes_on_where_the_first_was(networked: Store, source: Path) -> None:
    assert put(source, missing(networked)[2])
    later = replace(networked)  # knows nothing of the first
    door = Door(later)
    counted: list[int] = []
    send(door, source, Tally(len(BLOB), lambda done, _: counted.append(done)))
    assert door.asked == [(1, 3), ()]
    assert counted[0] == PART, "what was there counts as arrived"
    assert counted[-1] == len(BLOB)
    assert b"".join(networked.read(DIGEST)) == BLOB


def test_a_part_of_other_bytes_is_not_the_declared_one(strict: Store, source: Path) -> None:
    # Two lists for one blob: one of them lies. A folder tells its parts apart, and so does a
    # bucket that lists digests; in any other the blob's own digest tells when it is published.
    liar = [PARTS[0], PARTS[1], digests.of_bytes(b"x" * 12345)]
    assert raw(missing(strict, liar)[3], b"x" * 12345) == 200
    absent = missing(strict)
    assert set(absent) == ({1, 2, 3} if isinstance(strict, LocalStore) else {1, 2})


def test_parts_of_one_content_are_told_apart_by_their_number(
    networked: Store, tmp_path: Path
) -> None:
    blob = bytes(3 * PART)
    source = tmp_path / "zeros"
    source.write_bytes(blob)
    digest, large = digests.of_bytes(blob), digests.of_bytes(blob[:PART])
    for part in networked.assemble(digest, len(blob), [large] * 3):
        assert put(source, part)
    assert networked.assemble(digest, len(blob), [large] * 3) == ()
    assert b"".join(networked.read(digest)) == blob


def test_what_is_given_up_begins_anew(networked: Store, source: Path) -> None:
    assert put(source, missing(networked)[1])
    (found,) = mine(networked)
    assert found.namespace == "default"
    networked.abandon(found)
    networked.abandon(found)
    assert mine(networked) == []
    assert set(missing(networked)) == {1, 2, 3}


def test_a_store_knows_since_when_parts_come(strict: Store, source: Path) -> None:
    assert put(source, missing(strict)[1])
    (found,) = mine(strict)
    assert abs(datetime.now(UTC) - found.since) < timedelta(minutes=1)


def test_namespaces_share_no_part(networked: Store, source: Path) -> None:
    assert put(source, missing(networked)[1])
    other = networked.inside("other")
    assert set(missing(other)) == {1, 2, 3}
    for assembly in mine(networked):
        if assembly.namespace == "other":
            networked.abandon(assembly)
    assert set(missing(networked)) == {2, 3}


def test_two_who_send_one_blob_end_with_it(networked: Store, source: Path) -> None:
    problems: list[BaseException] = []
    start = threading.Barrier(2)

    def work() -> None:
        start.wait()
        try:
            send(Door(replace(networked)), source)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert b"".join(networked.read(DIGEST)) == BLOB


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"x" + BLOB[1:PART], BLOB[: PART - 1], BLOB[: PART + 1], BLOB[PART : 2 * PART], b""],
    ids=["changed", "short", "long", "another's", "empty"],
)
def test_other_bytes_than_a_parts_are_refused(strict: Store, data: bytes) -> None:
    assert 400 <= raw(missing(strict)[1], data) < 500
    assert set(missing(strict)) == {1, 2, 3}


def test_a_url_for_one_part_takes_no_other(strict: Store) -> None:
    one, two = missing(strict)[1], missing(strict)[2]
    for before, after in (("partNumber=1&", "partNumber=2&"), (PARTS[0][7:], PARTS[1][7:])):
        swapped = one.url.replace(before, after)
        status = raw(one.model_copy(update={"url": swapped}), BLOB[:PART])
        assert status == (200 if swapped == one.url else 403)
    assert set(missing(strict)) == {2, 3}
    forged = two.model_copy(update={"headers": one.headers})
    assert 400 <= raw(forged, BLOB[:PART]) < 500
    assert set(missing(strict)) == {2, 3}


def test_a_file_that_changed_meanwhile_is_refused(strict: Store, source: Path) -> None:
    target = missing(strict)[1]
    source.write_bytes(b"x" + BLOB[1:])
    with pytest.raises(UploadCorruptError, match="refused source"):
        put(source, target)
    assert set(missing(strict)) == {1, 2, 3}


def test_parts_in_another_order_make_no_blob_under_its_digest(
    strict: Store, source: Path, tmp_path: Path
) -> None:
    # Each part is what was declared, so only the whole's digest can tell.
    order = [PARTS[1], PARTS[0], PARTS[2]]
    swapped = tmp_path / "swapped"
    swapped.write_bytes(BLOB[PART : 2 * PART] + BLOB[:PART] + BLOB[2 * PART :])
    for part in missing(strict, order).values():
        assert put(swapped, part)
    if isinstance(strict, LocalStore):
        with pytest.raises(UploadCorruptError, match="REG001"):
            missing(strict, order)
        assert strict.size(DIGEST) is None
    else:  # publishing reads it and finds out: tests/server/test_parts.py
        assert missing(strict, order) == {}


def test_a_url_whose_time_is_over_is_replaced(brief: Store, source: Path) -> None:
    class Slow(Door):
        def assemble(self, upload_id: str, digest: str, request: PartsRequest) -> MissingParts:
            found = super().assemble(upload_id, digest, request)
            if len(self.asked) == 1:
                time.sleep(2.1)  # both clocks count whole seconds
            return found

    door = Slow(brief)
    send(door, source)
    assert door.asked == [(1, 2, 3), (1, 2, 3), ()]
    assert b"".join(brief.read(DIGEST)) == BLOB


def test_a_push_whose_parts_were_given_up_sends_them_anew(networked: Store, source: Path) -> None:
    class Swept(Door):
        def assemble(self, upload_id: str, digest: str, request: PartsRequest) -> MissingParts:
            if len(self.asked) == 1:
                for assembly in mine(self.store):
                    self.store.abandon(assembly)
            return super().assemble(upload_id, digest, request)

    door = Swept(networked)
    send(door, source)
    assert door.asked == [(1, 2, 3), (1, 2, 3), ()]
    assert b"".join(networked.read(DIGEST)) == BLOB


def test_a_store_that_keeps_nothing_is_not_asked_for_ever(networked: Store, source: Path) -> None:
    class Forgetful(Door):
        def assemble(self, upload_id: str, digest: str, request: PartsRequest) -> MissingParts:
            for assembly in mine(self.store):
                self.store.abandon(assembly)
            return super().assemble(upload_id, digest, request)

    door = Forgetful(networked)
    with pytest.raises(RegistryError, match="3 parts of source do not stay"):
        send(door, source)
    assert len(door.asked) == 5


def test_small_blobs_go_whole_and_so_do_all_between_folders(tmp_path: Path) -> None:
    parting = Parting(beyond=100, size=10)
    assert (parting.of(100), parting.of(101)) == (None, 10)
    assert LocalStore(tmp_path, parting=parting).part_bytes(101) is None


def test_a_part_that_comes_after_the_end_is_told_so(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)

    def chunks() -> Iterator[bytes]:
        yield BLOB[:PART]
        shutil.rmtree(tmp_path / "parts")  # as who puts the blob together does

    with pytest.raises(NotFoundError, match="nobody waits"):
        store.put_part(DIGEST, PARTS[0], PART, chunks())


class Refusing:
    """S3's client, whose first completion ends in an error, done or not done."""

    def __init__(self, inner: object, code: str, *, done: bool) -> None:
        self._inner, self._code, self._done = inner, code, done

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def complete_multipart_upload(self, **given: object) -> None:
        if self._done:
            self._inner.complete_multipart_upload(**given)  # type: ignore[attr-defined]
        raise ClientError({"Error": {"Code": self._code}}, "CompleteMultipartUpload")


def test_a_completion_whose_answer_was_lost_is_one(make_store: MakeStore, source: Path) -> None:
    store = make_store("moto")
    assert isinstance(store, S3Store)
    lost = replace(store, client=Refusing(store.client, "NoSuchUpload", done=True))
    door = Door(lost)
    send(door, source)
    assert door.asked == [(1, 2, 3), ()]
    assert b"".join(store.read(DIGEST)) == BLOB


@pytest.mark.parametrize("code", ["InvalidPart", "ConditionalRequestConflict"])
def test_an_upload_that_cannot_be_completed_gives_way(
    make_store: MakeStore, source: Path, code: str
) -> None:
    store = make_store("moto")
    assert isinstance(store, S3Store)
    for part in missing(store).values():
        assert put(source, part)
    refusing = replace(store, client=Refusing(store.client, code, done=False))
    if code == "InvalidPart":
        assert set(missing(refusing)) == {1, 2, 3}, "it begins anew"
    else:
        with pytest.raises(RegistryError, match="ended by others"):
            missing(refusing)
    assert store.size(DIGEST) is None
    send(Door(store), source)
    assert b"".join(store.read(DIGEST)) == BLOB
