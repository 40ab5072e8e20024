"""Several applies, and other programs, that write to one folder of a real S3 server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lowrank_cases import Case, part, write_base
from rankloom.apply.s3 import Prefix
from rankloom.apply.s3_files import S3Sink
from rankloom.apply.s3_output import S3Output
from rankloom.apply.staged import Staged
from rankloom.composition import Composition, compose
from rankloom.errors import BackendUnavailableError, ConflictError
from s3_cases import contents, local, new_url
from servers import BUCKET

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

    from rankloom.apply.s3 import Listed

pytestmark = [
    pytest.mark.services,
    pytest.mark.filterwarnings("ignore:BASE001:rankloom.errors.RankloomWarning"),
]


@pytest.fixture
def composition(tmp_path: Path) -> Composition:
    write_base(tmp_path / "base", shards=2)
    Case().write(tmp_path / "adapter")
    return compose([part(tmp_path / "adapter")])


@pytest.fixture
def prefix(client: S3Client) -> Prefix:
    return Prefix(new_url())


def output(prefix: Prefix, folder: Path, identity: str = "one") -> S3Output:
    folder.mkdir(exist_ok=True)
    return S3Output(prefix, folder, identity, ["a", "b"], hashes=False)


def staged(prefix: Prefix, name: str, data: bytes) -> Staged:
    sink = S3Sink(prefix, name, len(data))
    sink.write_at(memoryview(data), 0)
    return Staged(name, len(data), sink.finish(), None, (), "a kind")


@pytest.mark.parametrize("weight", [1, 0.5])  # the same work, which takes up, and another
@pytest.mark.parametrize("call", [1, 3])  # before its first file, and in the middle
def test_of_two_applies_the_later_one_stands_and_the_other_is_told(
    tmp_path: Path, client: S3Client, composition: Composition, weight: float, call: int
) -> None:
    later = compose(composition.parts, [weight])
    later.apply_to(tmp_path / "base", tmp_path / "out")
    target, calls = new_url(), iter(range(1, 99))

    def overtake(*_: int) -> None:
        if next(calls) == call:
            later.apply_to(tmp_path / "base", target)

    with pytest.raises(ConflictError, match=r"began later|taken back|replaced"):
        composition.apply_to(tmp_path / "base", target, progress=overtake, workers=1)
    assert contents(client, target) == local(tmp_path / "out")
    assert not client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_whoever_is_overtaken_while_it_looks_writes_no_journal(
    tmp_path: Path, client: S3Client, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, real, later = output(prefix, tmp_path / "first"), S3Output._ours, []

    def look(one: S3Output) -> dict[str, Listed]:
        found = real(one)
        if one is first and not later:
            later.append(output(prefix, tmp_path / "second", "another"))
        return found

    monkeypatch.setattr(S3Output, "_ours", look)
    with pytest.raises(ConflictError, match="was replaced by somebody else"):
        first.add(staged(prefix, "a", b"first"))
    first.give_up(keep=False)
    later[0].add(staged(prefix, "a", b"second"))
    later[0].publish()
    assert contents(client, prefix.url) == {"a": b"second"}
    assert not prefix.uploads()


def test_a_journal_that_grows_while_it_is_looked_at_is_read_whole(
    tmp_path: Path, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, real, grown = output(prefix, tmp_path / "first"), Prefix.files, []

    def files(one: Prefix) -> dict[str, Listed]:
        found = real(one)
        if not grown:
            grown.append(True)
            first.add(staged(prefix, "a", b"first"))
        return found

    monkeypatch.setattr(Prefix, "files", files)
    assert set(output(prefix, tmp_path / "second").finished()) == {"a"}


@pytest.mark.parametrize("identity", ["one", "another"])
def test_whoever_was_overtaken_touches_nothing_any_more(
    tmp_path: Path, client: S3Client, prefix: Prefix, identity: str
) -> None:
    first = output(prefix, tmp_path / "first")
    (first.content / "config.json").write_bytes(b"first")
    first.add(staged(prefix, "a", b"first"))
    too_late = staged(prefix, "b", b"first")
    second = output(prefix, tmp_path / "second", identity)
    (second.content / "config.json").write_bytes(b"second")
    unless_kept = [] if second.finished() else [staged(prefix, "a", b"second")]
    for one in [*unless_kept, staged(prefix, "b", b"second")]:
        before, uploads = contents(client, prefix.url), prefix.uploads()
        with pytest.raises(ConflictError, match="another apply that began later"):
            first.add(too_late)
        with pytest.raises(ConflictError, match="another apply that began later"):
            first.publish()
        first.give_up(keep=False)
        assert (contents(client, prefix.url), prefix.uploads()) == (before, uploads)
        second.add(one)
    second.publish()
    a = b"second" if unless_kept else b"first"
    assert contents(client, prefix.url) == {"a": a, "b": b"second", "config.json": b"second"}
    assert not prefix.uploads()


def test_uploads_of_others_stay(tmp_path: Path, client: S3Client, composition: Composition) -> None:
    target = new_url()
    folder = target.removeprefix(f"s3://{BUCKET}/")
    name = min(path.name for path in (tmp_path / "base").glob("*.safetensors"))
    keys = [f"{folder}/{name}", f"{folder}/other", f"{folder}/deeper/{name}", f"{folder}2/{name}"]
    made = [client.create_multipart_upload(Bucket=BUCKET, Key=key) for key in keys]

    def stop(*_: int) -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the caller's own
        composition.apply_to(tmp_path / "base", target, progress=stop)
    composition.apply_to(tmp_path / "base", target)
    left = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    for one in made:
        client.abort_multipart_upload(Bucket=BUCKET, Key=one["Key"], UploadId=one["UploadId"])
    assert {one["UploadId"] for one in left} == {one["UploadId"] for one in made}


def test_uploads_of_a_run_that_was_killed_are_taken_back(tmp_path: Path, prefix: Prefix) -> None:
    output(prefix, tmp_path / "killed")
    staged(prefix, "a", b"killed")
    assert prefix.uploads()
    output(prefix, tmp_path / "next")
    assert not prefix.uploads()


def test_a_file_that_somebody_else_wrote_is_no_result_and_stays(
    tmp_path: Path, client: S3Client, prefix: Prefix
) -> None:
    one = output(prefix, tmp_path / "one")
    for name in "ab":
        one.add(staged(prefix, name, b"ours"))
    prefix.put("a", b"theirs")
    with pytest.raises(ConflictError, match="somebody else has written"):
        one.publish()
    one.give_up(keep=False)
    assert contents(client, prefix.url) == {"a": b"theirs"}


def test_an_upload_that_was_taken_back_is_named_and_closes_quietly(prefix: Prefix) -> None:
    sink = S3Sink(prefix, "a", 1)
    [(name, upload)] = prefix.uploads()
    prefix.abort(name, upload)
    with pytest.raises(ConflictError, match=r"/a was taken back by somebody else"):
        sink.write_at(memoryview(b"1"), 0)
    sink.close()


def test_what_cannot_be_removed_hides_no_cause(
    tmp_path: Path, client: S3Client, composition: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: int) -> None:
        def uploads(_: Prefix) -> set[tuple[str, str]]:
            message = "no answer"
            raise BackendUnavailableError(message)

        monkeypatch.setattr(Prefix, "uploads", uploads)
        message = "the cause"
        raise ValueError(message)

    with pytest.raises(ValueError, match="the cause") as found:
        composition.apply_to(tmp_path / "base", new_url(), progress=stop)
    assert found.value.__notes__ == ["and what it left could not be removed: no answer"]
