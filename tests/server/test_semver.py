"""Semantic versions: one content's for ever, and found by a range."""

from pathlib import Path

import pytest

from adapter_folder import manifest_of, write_adapter
from rankloom import ref
from rankloom.errors import ConflictError, NotFoundError, RefError, RegistryError
from rankloom.ref import AdapterName
from rankloom.registry.protocol import Registry
from rankloom.registry.push import push as push_folder
from rankloom.registry.push import send
from rankloom.registry.wire import Upload, UploadRequest, Version, VersionQuery
from rankloom_server.service import Service, open_embedded

NAME = AdapterName("default", "zh")


def push(registry: Registry, folder: Path, semver: str | None) -> Version:
    request = UploadRequest(manifest=manifest_of(folder), semver=semver)
    return registry.publish(send(registry, folder, NAME, request))


def resolved(registry: Registry, text: str) -> str | None:
    found = ref.parse(text)
    assert isinstance(found, ref.VersionRef)
    return registry.resolve(found).version.semver


def test_a_semantic_version_names_one_content_for_ever(registry: Registry, tmp_path: Path) -> None:
    one, two = (write_adapter(tmp_path / f"a{seed}", seed=seed) for seed in range(2))
    first = push(registry, one, None)
    assert first.semver is None
    # What was pushed without one may be given one later, and the same again changes nothing.
    for _ in range(2):
        assert push(registry, one, "1.2.0").digest == first.digest
        assert resolved(registry, "zh@1.2.0") == "1.2.0"
    assert push(registry, one, None).semver == "1.2.0"
    with pytest.raises(ConflictError, match=r"REG004 zh@1\.2\.0 is v1"):
        push(registry, two, "1.2.0")
    with pytest.raises(ConflictError, match=r"REG004 zh@v1 is 1\.2\.0 already"):
        push(registry, one, "1.3.0")
    assert push(registry, two, "1.10.0-rc.1").number == 2
    assert registry.show(NAME).versions[1].semver == "1.2.0"
    shown = registry.search(VersionQuery(latest=False)).items
    assert [item.semver for item in shown] == ["1.10.0-rc.1", "1.2.0"]


def test_two_who_push_one_semantic_version_cannot_both_succeed(
    registry: Registry, tmp_path: Path
) -> None:
    folders = [write_adapter(tmp_path / f"a{seed}", seed=seed) for seed in range(2)]
    uploads = []  # neither is a version yet
    for folder in folders:
        request = UploadRequest(manifest=manifest_of(folder), semver="1.0.0")
        uploads.append(send(registry, folder, NAME, request))
    assert registry.publish(uploads[0]).semver == "1.0.0"
    with pytest.raises(ConflictError, match="REG004"):
        registry.publish(uploads[1])
    assert [item.number for item in registry.show(NAME).versions] == [1]


def test_nobody_changes_what_another_is_about_to_publish(
    registry: Registry, tmp_path: Path
) -> None:
    """Three push one content at the same time, of whom only the first two name its version."""
    manifest = manifest_of(write_adapter(tmp_path / "a"))
    first, second, third = (
        registry.open_upload(NAME, UploadRequest(manifest=manifest, semver=semver, card=card))
        for semver, card in (("1.0.0", "ours"), ("2.0.0", None), (None, None))
    )
    again = UploadRequest(manifest=manifest, semver="1.0.0", card="ours")
    assert send(registry, tmp_path / "a", NAME, again) == first.id
    assert registry.publish(third.id).semver is None
    assert registry.publish(first.id).semver == "1.0.0"
    assert registry.show(NAME).card == "ours"
    with pytest.raises(ConflictError, match=r"REG004 zh@v1 is 1\.0\.0 already"):
        registry.publish(second.id)


def test_a_registry_that_drops_the_semantic_version_is_not_believed(tmp_path: Path) -> None:
    class Forgetful(Service):
        def open_upload(self, adapter: AdapterName, request: UploadRequest) -> Upload:
            return super().open_upload(adapter, request.model_copy(update={"semver": None}))

    folder, service = write_adapter(tmp_path / "a"), open_embedded(tmp_path / "data")
    forgetful = Forgetful(service.engine, service.store, service.scratch)
    with pytest.raises(RegistryError, match=r"zh@v1 was to be 1\.0\.0, .* without"):
        push_folder(forgetful, folder, NAME, manifest_of(folder), semver="1.0.0")
    service.close()


def test_a_range_means_the_highest_that_may_be_used(registry: Registry, tmp_path: Path) -> None:
    for seed, semver in enumerate(("1.9.0", "1.10.0", "1.11.0-rc.1", "2.0.0")):
        version = push(registry, write_adapter(tmp_path / f"a{seed}", seed=seed), semver)
    assert resolved(registry, "zh@^1") == resolved(registry, "zh@^1.9.0") == "1.10.0"
    assert resolved(registry, "zh@~1.9") == "1.9.0"
    assert resolved(registry, "zh@1.11.0-rc.1") == "1.11.0-rc.1"
    assert resolved(registry, "zh@^2") == "2.0.0"
    registry.yank(NAME, version.digest, "bad")
    for missing in ("zh@^2", "zh@^1.12", "zh@3.0.0"):
        with pytest.raises(NotFoundError):
            resolved(registry, missing)
    assert resolved(registry, "zh@2.0.0") == "2.0.0"  # named exactly, as by its number


@pytest.mark.parametrize("bad", ["1.2", "01.0.0", "1.0.0+build", "^1.2.3-rc", "~", "1." + "1" * 80])
def test_what_is_no_semantic_version_is_refused(bad: str) -> None:
    with pytest.raises(RefError, match="semantic version"):
        ref.parse(f"zh@{bad}")
