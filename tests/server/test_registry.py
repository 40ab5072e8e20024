"""The protocol, by both doors, on both kinds of database and store."""

from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread
from typing import TypeVar

import pytest

from adapter_folder import (
    base_record,
    fingerprint,
    manifest_of,
    push,
    send,
    with_its_fingerprint,
    write_adapter,
    write_base,
)
from rankloom import digest as digests
from rankloom.base.fingerprint import measure
from rankloom.base.reader import read as read_base
from rankloom.errors import (
    AdapterError,
    BaseError,
    ConflictError,
    IncompatibleError,
    NotFoundError,
    RankloomError,
    RefError,
)
from rankloom.manifest import FileEntry, Manifest
from rankloom.ref import AdapterName, VersionRef, parse
from rankloom.registry import transfer
from rankloom.registry.base_record import check, to_record
from rankloom.registry.protocol import Registry
from rankloom.registry.wire import AliasRequest, BaseTensorShape, UploadRequest, Version

T = TypeVar("T")
NAME = AdapterName("default", "zh-lang")
NOWHERE = digests.of_bytes(b"no version")


def resolve(registry: Registry, ref: str) -> Version:
    parsed = parse(ref)
    assert isinstance(parsed, VersionRef)
    return registry.resolve(parsed).version


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three adapters with different contents."""
    return [write_adapter(tmp_path / f"adapter-{seed}", seed=seed) for seed in range(3)]


# --- push and resolve --------------------------------------------------------------------------


def test_a_pushed_version_comes_back_whole(
    registry: Registry, folders: list[Path], tmp_path: Path
) -> None:
    version = push(registry, folders[0], card="Speaks Chinese.")
    found = registry.resolve(VersionRef(NAME, alias="latest"))
    assert found.version == version
    assert found.manifest.digest == version.digest == manifest_of(folders[0]).digest
    for entry in found.manifest.files:
        url = registry.blob_url(NAME, version.digest, entry.path)
        transfer.get(url, tmp_path / "out" / entry.path, digest=entry.digest, size=entry.size)
        assert (tmp_path / "out" / entry.path).read_bytes() == (
            folders[0] / entry.path
        ).read_bytes()
    assert registry.show(NAME).card == "Speaks Chinese."


def test_facts_are_derived_from_the_files(registry: Registry, folders: list[Path]) -> None:
    facts = push(registry, folders[0]).facts
    assert (facts.kinds, facts.ranks) == (("lora",), (4,))
    assert facts.targets == (
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.self_attn.q_proj.weight",
    )
    assert facts.parameters == 2 * (4 * 8 + 8 * 4)  # A and B of two targets
    assert facts.nbytes == 4 * facts.parameters


def test_versions_are_numbered_and_latest_is_the_newest(
    registry: Registry, folders: list[Path]
) -> None:
    versions = [push(registry, folder) for folder in folders]
    assert [version.number for version in versions] == [1, 2, 3]
    assert resolve(registry, "zh-lang") == versions[2]
    assert resolve(registry, "zh-lang@v2") == versions[1]
    assert resolve(registry, versions[0].pinned) == versions[0]
    assert registry.show(NAME).versions == tuple(reversed(versions))
    assert len({*versions, *registry.show(NAME).versions}) == 3, "a version can be in a set"


def test_the_same_content_is_the_same_version_and_moves_no_bytes(
    registry: Registry, folders: list[Path]
) -> None:
    first = push(registry, folders[0])
    push(registry, folders[1])
    request = UploadRequest(manifest=manifest_of(folders[0]))
    upload = registry.open_upload(NAME, request)
    assert upload.missing == ()
    assert registry.publish(upload.id) == first
    assert len(registry.show(NAME).versions) == 2


def test_publishing_again_is_the_same_version(registry: Registry, folders: list[Path]) -> None:
    upload = registry.open_upload(NAME, UploadRequest(manifest=manifest_of(folders[0])))
    send(folders[0], upload)
    assert registry.publish(upload.id) == registry.publish(upload.id)


def test_a_broken_push_is_taken_up_where_it_broke(registry: Registry, folders: list[Path]) -> None:
    request = UploadRequest(manifest=manifest_of(folders[0]))
    upload = registry.open_upload(NAME, request)
    assert len(upload.missing) == 2
    one, other = upload.missing
    send(folders[0], upload.model_copy(update={"missing": (one,)}))
    with pytest.raises(ConflictError, match="did not arrive"):
        registry.publish(upload.id)
    again = registry.open_upload(NAME, request)
    assert [target.digest for target in again.missing] == [other.digest]
    send(folders[0], again)
    assert registry.publish(again.id).number == 1


def test_another_namespace_does_not_learn_which_blobs_are_there(
    registry: Registry, folders: list[Path]
) -> None:
    push(registry, folders[0], "acme/zh-lang")
    request = UploadRequest(manifest=manifest_of(folders[0]))
    inside = registry.open_upload(AdapterName("acme", "copy"), request)
    outside = registry.open_upload(AdapterName("other", "copy"), request)
    assert (len(inside.missing), len(outside.missing)) == (0, 2)
    # Asking twice proves nothing either.
    assert len(registry.open_upload(AdapterName("other", "copy"), request).missing) == 2
    assert send(folders[0], outside) == 2
    assert registry.publish(outside.id).number == 1


def test_two_pushes_of_one_content_at_once_make_one_version(
    registry: Registry, folders: list[Path]
) -> None:
    found = _at_once(lambda index: push(registry, folders[0], card=str(index)), 4)
    assert len({(version.number, version.digest) for version in found}) == 1
    assert len(registry.show(NAME).versions) == 1


def test_pushes_of_several_contents_at_once_get_numbers_of_their_own(
    registry: Registry, folders: list[Path]
) -> None:
    found = _at_once(lambda index: push(registry, folders[index]), len(folders))
    assert sorted(version.number for version in found) == [1, 2, 3]


def _at_once(call: Callable[[int], T], count: int) -> list[T]:
    found: list[T] = []
    barrier = Barrier(count)

    def run(index: int) -> None:
        barrier.wait()
        found.append(call(index))

    threads = [Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == count
    return found


# --- what is refused ---------------------------------------------------------------------------


def _declared(*entries: tuple[str, int, str], lock: dict[str, object] | None = None) -> Manifest:
    files = tuple(FileEntry(path=path, size=size, digest=digest) for path, size, digest in entries)
    return Manifest(files=files, lock=lock)


@pytest.mark.parametrize(
    "manifest",
    [
        _declared(("a", 1, NOWHERE), ("a", 1, NOWHERE)),
        _declared(("README.md", 1, NOWHERE), ("readme.md", 1, NOWHERE)),
        _declared(("a", 1, NOWHERE), ("a/b", 1, NOWHERE)),
        _declared(("rankloom.json", 1, NOWHERE)),
        _declared(("a", 1, NOWHERE), ("b", 2, NOWHERE)),
        _declared(*[(f"f{n}", 5 << 30, digests.of_bytes(b"%d" % n)) for n in range(2)]),
    ],
    ids=["twice", "case", "folder", "record", "sizes", "large"],
)
def test_a_manifest_that_cannot_become_a_version_is_refused(
    registry: Registry, manifest: Manifest
) -> None:
    with pytest.raises(RefError):
        registry.open_upload(NAME, UploadRequest(manifest=manifest))
    with pytest.raises(NotFoundError):
        registry.show(NAME)


def test_a_broken_adapter_does_not_become_a_version(
    registry: Registry, folders: list[Path], tmp_path: Path
) -> None:
    (folders[0] / "adapter_model.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(AdapterError, match="FMT") as caught:
        push(registry, folders[0])
    assert caught.value.findings
    shown = "\n".join([str(caught.value), caught.value.hint, *map(str, caught.value.findings)])
    assert str(tmp_path) not in shown, "the server's own paths are nobody's business"
    assert "scratch" not in shown
    with pytest.raises(NotFoundError):
        registry.show(NAME)


@pytest.mark.parametrize("name", ["optimizer.pt", "run.py", "model.bin"])
def test_files_that_are_no_part_of_an_adapter_are_refused(
    registry: Registry, folders: list[Path], name: str
) -> None:
    (folders[0] / name).write_bytes(b"anything")
    with pytest.raises(AdapterError, match=r"SEC001|part of an adapter"):
        push(registry, folders[0])


def test_an_unknown_upload_is_not_found(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="no upload"):
        registry.publish("0" * 32)


# --- bases -------------------------------------------------------------------------------------


def test_a_base_comes_back_as_it_was_recorded(registry: Registry) -> None:
    record = base_record()
    assert registry.add_base(record) == record
    assert registry.add_base(record) == record
    assert registry.get_base("tiny") == record
    registry.add_base(base_record("a-tiny", seed=1))
    listed = registry.list_bases()
    assert [base.name for base in listed] == ["a-tiny", "tiny"]
    assert all(base.tensors == {} for base in listed)


def test_a_bases_name_means_one_fingerprint(registry: Registry) -> None:
    registry.add_base(base_record())
    with pytest.raises(ConflictError, match="tiny"):
        registry.add_base(base_record(seed=1))


def test_a_version_is_tied_to_the_base_that_was_named(
    registry: Registry, folders: list[Path]
) -> None:
    registry.add_base(base_record())
    version = push(registry, folders[0], base="tiny", made_for=fingerprint())
    assert version.base == "tiny"
    # Without a name, by the values themselves.
    assert push(registry, folders[1], made_for=fingerprint()).base == "tiny"
    assert push(registry, folders[2], made_for=fingerprint(7)).base is None


@pytest.mark.parametrize("made_for", [fingerprint(1), None], ids=["other values", "unknown"])
def test_a_base_that_does_not_match_is_refused(
    registry: Registry, folders: list[Path], made_for: object
) -> None:
    registry.add_base(base_record())
    with pytest.raises(IncompatibleError) as caught:
        push(registry, folders[0], base="tiny", made_for=made_for)  # type: ignore[arg-type]
    assert [finding.rule for finding in caught.value.findings] == ["BASE003"]


def test_a_base_of_other_shapes_is_refused(registry: Registry, folders: list[Path]) -> None:
    record = base_record()
    wider = {
        name: shape.model_copy(update={"shape": (8, 16)}) for name, shape in record.tensors.items()
    }
    wide = with_its_fingerprint(record.model_copy(update={"tensors": wider}))
    registry.add_base(wide)
    with pytest.raises(RankloomError, match="BASE002") as caught:
        push(registry, folders[0], base="tiny", made_for=wide.fingerprint)
    assert isinstance(caught.value, IncompatibleError | AdapterError)


def test_what_others_record_changes_nothing(registry: Registry, folders: list[Path]) -> None:
    other = base_record("first").model_copy(update={"config": {"model_type": "qwen2"}})
    registry.add_base(with_its_fingerprint(other))  # it claims the same values
    registry.add_base(base_record())
    registry.add_base(base_record("a-tiny"))
    assert push(registry, folders[0], made_for=fingerprint()).base == "tiny"


SHAPE = BaseTensorShape(dtype="F32", shape=(8, 16))
LEAF = BaseTensorShape(dtype="F32", shape=(8, 8), leaf=NOWHERE)


@pytest.mark.parametrize(
    ("level", "change"),
    [
        ("struct", {"tensors": dict.fromkeys(base_record().tensors, SHAPE)}),
        ("cfg", {"config": {"model_type": "qwen2"}}),
        ("bf16", {"tensors": dict.fromkeys(base_record().tensors, LEAF)}),
    ],
)
def test_a_base_that_is_not_what_its_fingerprint_says_is_refused(
    registry: Registry, level: str, change: dict[str, object]
) -> None:
    """Else anybody could say of another's base what its adapters are then judged beside."""
    with pytest.raises(BaseError, match=rf"BASE003.*\({level}\)"):
        registry.add_base(base_record().model_copy(update=change))
    assert registry.list_bases() == ()


@pytest.mark.parametrize("value", [float("nan"), "\ud800"])
def test_a_base_whose_config_is_no_json_is_refused(value: object) -> None:
    config = {"model_type": "llama", "hidden_size": value}
    with pytest.raises(BaseError, match="is no JSON"):
        check(base_record().model_copy(update={"config": config}))


def test_a_base_read_with_its_values_is_what_its_record_says(
    registry: Registry, tmp_path: Path
) -> None:
    base = read_base(write_base(tmp_path))
    found = measure(base)
    record = to_record(base, "whole", found.fingerprint, leaves=found.leaves)
    assert registry.add_base(record) == record


def test_an_unknown_base_is_not_found(registry: Registry, folders: list[Path]) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        push(registry, folders[0], base="nobody", made_for=fingerprint())
    with pytest.raises(NotFoundError, match="nobody"):
        registry.get_base("nobody")


# --- aliases and yanking -----------------------------------------------------------------------


def test_an_alias_moves_by_compare_and_set(registry: Registry, folders: list[Path]) -> None:
    one, two = (push(registry, folder).digest for folder in folders[:2])
    move = registry.set_alias(NAME, "prod", AliasRequest(digest=one))
    assert (move.before, move.after) == (None, one)
    assert resolve(registry, "zh-lang:prod").aliases == ("prod",)
    for expected in (None, two, NOWHERE):
        with pytest.raises(ConflictError, match=one):
            registry.set_alias(NAME, "prod", AliasRequest(digest=two, expected=expected))
    registry.set_alias(NAME, "prod", AliasRequest(digest=two, expected=one))
    assert resolve(registry, "zh-lang:prod").number == 2


def test_an_alias_is_removed_by_compare_and_set(registry: Registry, folders: list[Path]) -> None:
    one = push(registry, folders[0]).digest
    registry.set_alias(NAME, "prod", AliasRequest(digest=one))
    with pytest.raises(ConflictError, match=one):
        registry.delete_alias(NAME, "prod", NOWHERE)
    registry.delete_alias(NAME, "prod", one)
    with pytest.raises(NotFoundError, match="prod"):
        resolve(registry, "zh-lang:prod")
    with pytest.raises(ConflictError, match="nothing"):
        registry.delete_alias(NAME, "prod", one)


def test_one_of_many_movers_wins(registry: Registry, folders: list[Path]) -> None:
    digests_ = [push(registry, folder).digest for folder in folders]
    registry.set_alias(NAME, "prod", AliasRequest(digest=digests_[0]))
    request = AliasRequest(digest=digests_[1], expected=digests_[0])

    def move(_index: int) -> bool:
        try:
            registry.set_alias(NAME, "prod", request)
        except ConflictError:
            return False
        return True

    assert sum(_at_once(move, 6)) == 1


def test_an_alias_names_only_what_exists(registry: Registry, folders: list[Path]) -> None:
    with pytest.raises(NotFoundError, match="zh-lang"):
        registry.set_alias(NAME, "prod", AliasRequest(digest=NOWHERE))
    push(registry, folders[0])
    other = push(registry, folders[1], "other").digest
    for digest in (NOWHERE, other):
        with pytest.raises(NotFoundError, match=digest):
            registry.set_alias(NAME, "prod", AliasRequest(digest=digest))


@pytest.mark.parametrize("alias", ["latest", "Prod", "a..b"])
def test_some_aliases_cannot_be_set(registry: Registry, folders: list[Path], alias: str) -> None:
    digest = push(registry, folders[0]).digest
    with pytest.raises(RefError):
        registry.set_alias(NAME, alias, AliasRequest(digest=digest))
    with pytest.raises(RefError):
        registry.delete_alias(NAME, alias, digest)


def test_a_yanked_version_is_found_only_when_it_is_meant(
    registry: Registry, folders: list[Path]
) -> None:
    one, two = (push(registry, folder) for folder in folders[:2])
    registry.set_alias(NAME, "prod", AliasRequest(digest=two.digest))
    assert registry.yank(NAME, two.digest, "answers in French").yanked == "answers in French"
    assert resolve(registry, "zh-lang") == one
    for ref in ("zh-lang@v2", two.pinned, "zh-lang:prod"):
        assert resolve(registry, ref).yanked == "answers in French"
    registry.yank(NAME, one.digest, "so does this")
    with pytest.raises(NotFoundError, match="yanked"):
        resolve(registry, "zh-lang")
    assert registry.list_adapters().items[0].latest is None
    assert registry.yank(NAME, two.digest, None).yanked is None
    assert resolve(registry, "zh-lang").digest == two.digest


def test_yanking_needs_a_version_and_a_reason(registry: Registry, folders: list[Path]) -> None:
    version = push(registry, folders[0])
    with pytest.raises(RefError, match="reason"):
        registry.yank(NAME, version.digest, " ")
    with pytest.raises(NotFoundError, match=NOWHERE):
        registry.yank(NAME, NOWHERE, "why")


# --- the catalogue -----------------------------------------------------------------------------


def test_pages_hold_every_adapter_once_in_name_order(
    registry: Registry, folders: list[Path]
) -> None:
    names = ["a", "b-1", "b.1", "b1", "other/a", "other/z"]
    for name in names:
        push(registry, folders[0], name)
    seen: list[str] = []
    after = ""
    while True:
        page = registry.list_adapters(limit=2, after=after)
        seen += [str(AdapterName(item.namespace, item.name)) for item in page.items]
        if page.next is None:
            break
        assert len(page.items) == 2
        after = page.next
    assert seen == names
    inside = registry.list_adapters(namespace="other").items
    assert [item.name for item in inside] == ["a", "z"]


def test_a_search_finds_words_in_name_and_card(registry: Registry, folders: list[Path]) -> None:
    push(registry, folders[0], "zh-lang", card="Speaks Chinese, 100% sure")
    push(registry, folders[0], "qa-task", card="Answers questions in chinese")

    def found(query: str) -> list[str]:
        return [item.name for item in registry.list_adapters(query=query).items]

    assert found("CHINESE") == ["qa-task", "zh-lang"]
    assert found("lang chinese") == ["zh-lang"]
    assert found("100%") == ["zh-lang"]
    assert found("%") == ["zh-lang"], "a wildcard of SQL is a plain letter here"
    assert found("_") == []
    assert found("nothing") == []


@pytest.mark.parametrize("limit", [0, -1, 201])
def test_a_page_has_a_size(registry: Registry, limit: int) -> None:
    with pytest.raises(RefError, match=str(limit)):
        registry.list_adapters(limit=limit)


def test_a_page_starts_behind_a_name(registry: Registry) -> None:
    with pytest.raises(RefError):
        registry.list_adapters(after="No Name")


@pytest.mark.parametrize("ref", ["nobody", "nobody@v1", "zh-lang@v9", "zh-lang:prod", "x/zh-lang"])
def test_what_does_not_exist_is_not_found(
    registry: Registry, folders: list[Path], ref: str
) -> None:
    push(registry, folders[0])
    with pytest.raises(NotFoundError) as caught:
        resolve(registry, ref)
    assert caught.value.hint
    with pytest.raises(NotFoundError, match="no file"):
        registry.blob_url(NAME, NOWHERE, "README.md")
