"""The client's journeys, each through both doors of the registry."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapter_folder import write_adapter
from rankloom.client import Client
from rankloom.errors import (
    AdapterError,
    ConflictError,
    IncompatibleError,
    IntegrityError,
    NotFoundError,
    RankloomWarning,
    RefError,
    RegistryError,
)
from rankloom.manifest import RECORD, read_record
from rankloom.registry.wire import AliasRequest, ResolvedVersion


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != RECORD}


def stored_blobs(tmp_path: Path) -> list[Path]:
    roots = [tmp_path / "home/registry", tmp_path / "served"]
    return [path for root in roots for path in root.rglob("*") if len(path.name) == 64]


def test_push_then_pull_gives_the_same_bytes(client: Client, adapter: Path, base: Path) -> None:
    version = client.push(adapter, "zh-lang", base=base, alias="prod")
    assert (version.number, version.aliases, version.base) == (1, ("prod",), "tiny-base")
    for name in ("zh-lang", "zh-lang@v1", "zh-lang:prod", version.pinned):
        assert files_of(client.pull(name)) == files_of(adapter)


def test_the_same_content_again_is_the_same_version_and_moves_no_bytes(
    client: Client, adapter: Path, base: Path
) -> None:
    first = client.push(adapter, "zh-lang", base=base)
    moved: list[tuple[int, int]] = []
    again = client.push(adapter, "zh-lang", base=base, progress=lambda *seen: moved.append(seen))
    assert (again.number, again.digest) == (first.number, first.digest)
    assert moved == []


def test_a_pulled_folder_pushed_again_is_the_same_version(
    client: Client, adapter: Path, base: Path, tmp_path: Path
) -> None:
    first = client.push(adapter, "zh-lang", base=base)
    copy = client.pull("zh-lang", tmp_path / "copy")
    record = read_record(copy)
    assert record is not None
    assert record.digest == first.digest
    assert client.push(copy, "zh-lang").digest == first.digest


def test_versions_count_up_and_latest_is_the_newest(
    client: Client, tmp_path: Path, base: Path
) -> None:
    for seed in range(3):
        folder = write_adapter(tmp_path / f"a{seed}", seed=seed)
        assert client.push(folder, "acme/zh", base=base).number == seed + 1
    assert client.resolve("acme/zh").version.number == 3
    client.yank("acme/zh@v3", "trained on the test set")
    assert client.resolve("acme/zh").version.number == 2
    with pytest.warns(RankloomWarning, match="trained on the test set"):
        assert client.resolve("acme/zh@v3").version.number == 3
    client.unyank("acme/zh@v3")
    assert client.resolve("acme/zh").version.number == 3
    listed = {f"{item.namespace}/{item.name}": item.latest for item in client.list()}
    assert listed["acme/zh"] is not None
    assert [item.number for item in client.show("acme/zh").versions] == [3, 2, 1]


def test_an_alias_moves_only_from_where_it_is_thought_to_be(
    client: Client, tmp_path: Path, base: Path
) -> None:
    one, two = (
        client.push(write_adapter(tmp_path / f"a{seed}", seed=seed), "zh", base=base)
        for seed in range(2)
    )
    assert client.alias("zh@v1", "prod").before is None
    assert client.alias("zh@v2", "prod").before == one.digest
    with pytest.raises(ConflictError):
        client.alias("zh@v1", "prod", expected=one.digest)
    assert client.resolve("zh:prod").version.digest == two.digest
    with pytest.raises(RefError):
        client.alias("zh@v1", "latest")
    client.registry.delete_alias(two.adapter, "prod", two.digest)
    with pytest.raises(NotFoundError):
        client.resolve("zh:prod")
    request = AliasRequest(digest="sha256:" + "0" * 64, expected=None)
    with pytest.raises(NotFoundError):
        client.registry.set_alias(two.adapter, "prod", request)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_blob_is_refused_and_leaves_nothing(
    client: Client, adapter: Path, base: Path, tmp_path: Path, damage: str
) -> None:
    client.push(adapter, "zh", base=base)
    blob = max(stored_blobs(tmp_path), key=lambda path: path.stat().st_size)
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "remove":
        blob.unlink()
    else:
        blob.write_bytes(data if damage == "flip" else data[:-1])
    with pytest.raises(IntegrityError, match="REG002"):
        client.pull("zh", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(IntegrityError):
        client.pull("zh")


def test_a_damaged_cache_repairs_itself(client: Client, adapter: Path, base: Path) -> None:
    client.push(adapter, "zh", base=base)
    folder = client.pull("zh")
    for path in folder.iterdir():
        path.write_bytes(b"rotten")  # the blobs of the cache are the same files
    assert files_of(client.pull("zh")) == files_of(adapter)


def test_another_base_of_the_same_shapes_is_refused(
    client: Client, adapter: Path, base: Path, tmp_path: Path
) -> None:
    client.push(adapter, "zh", base=base)
    other = shutil.copytree(base, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"][0, 0] += 1e-3
    save_file(tensors, other / "model.safetensors")
    pulled = client.pull("zh", tmp_path / "pulled")
    with pytest.raises(IncompatibleError, match="BASE003"):
        client.push(pulled, "zh", base=other)
    report = client.validate("zh", against=other)
    assert [found.rule for found in report.errors] == ["BASE003"]
    assert client.validate("zh", against=base).level == "exact"
    # The same base under another name and sharding is still the same base.
    copy = shutil.copytree(base, tmp_path / "copy")
    (copy / "model.safetensors").rename(copy / "renamed.safetensors")
    assert client.push(pulled, "zh", base=copy).number == 1


def test_a_base_can_be_named_once_it_is_recorded(
    client: Client, adapter: Path, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError):
        client.push(adapter, "zh", base="tiny")
    record = client.add_base(base, "tiny")
    assert client.add_base(base, "tiny") == record
    version = client.push(adapter, "zh", base="tiny")
    assert version.base == "tiny"
    assert client.validate("zh", against="tiny").ok
    assert [item.name for item in client.list_bases()] == ["tiny"]
    assert client.show_base("tiny").fingerprint == client.fingerprint(base)
    other = shutil.copytree(base, tmp_path / "other")
    save_file({"a.weight": np.zeros((1, 1), np.float32)}, other / "model.safetensors")
    with pytest.raises(ConflictError):
        client.add_base(other, "tiny")


def test_without_a_base_a_push_warns(client: Client, adapter: Path) -> None:
    with pytest.warns(RankloomWarning, match="BASE001"):
        version = client.push(adapter, "zh")
    assert version.base is None


def test_a_broken_adapter_is_refused_before_anything_is_sent(
    client: Client, adapter: Path, base: Path, tmp_path: Path
) -> None:
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    first = next(iter(tensors))
    tensors[first][0, 0] = np.nan
    save_file(tensors, weights)
    with pytest.raises(AdapterError) as caught:
        client.push(adapter, "zh", base=base)
    assert [found.rule for found in caught.value.findings] == ["NUM001"]
    assert stored_blobs(tmp_path) == []
    with pytest.raises(NotFoundError):
        client.show("zh")


def test_changed_bytes_under_a_record_are_refused(
    client: Client, adapter: Path, base: Path, tmp_path: Path
) -> None:
    client.push(adapter, "zh", base=base)
    copy = client.pull("zh", tmp_path / "copy")
    config = copy / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    with pytest.raises(IntegrityError, match=r"adapter_config\.json"):
        client.push(copy, "zh")
    (copy / RECORD).unlink()
    assert client.push(copy, "zh", base=base).number == 2


def test_names_that_are_not_there(client: Client) -> None:
    for call in (client.pull, client.show, client.resolve):
        with pytest.raises(NotFoundError):
            call("nobody")


def test_a_folder_of_that_name_is_hinted_at(
    client: Client, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(adapter.parent)
    with pytest.raises(NotFoundError) as caught:
        client.pull("adapter")
    assert "./adapter" in caught.value.hint


def test_an_unreachable_registry_says_so(adapter: Path) -> None:
    with Client("http://127.0.0.1:9", "rl_x") as client, pytest.raises(RegistryError) as caught:
        client.pull("zh")
    assert "127.0.0.1:9" in caught.value.message
    assert caught.value.hint


def test_a_card_is_kept_beside_the_version(client: Client, adapter: Path, base: Path) -> None:
    first = client.push(adapter, "zh", base=base)
    (adapter / "README.md").write_text("# A card")
    assert client.push(adapter, "zh", base=base).digest == first.digest
    assert client.show("zh").card == "# A card"


def test_what_another_says_between_a_look_and_a_remark_stays(
    client: Client, adapter: Path, base: Path
) -> None:
    client.push(adapter, "zh", base=base)
    client.remark("zh", labels={"task": "qa"})
    look = client.resolve

    def look_too_early(name: str) -> ResolvedVersion:
        patch.undo()
        found = look(name)
        client.remark(name, labels={"stage": "live"}, metrics={"a": 1.0}, deprecated="old")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "resolve", look_too_early)
        after = client.remark("zh", labels={"task": None}, metrics={"b": 2.0})
    assert (after.labels, after.metrics) == ({"stage": "live"}, {"a": 1.0, "b": 2.0})
    assert after.deprecated == "old"
