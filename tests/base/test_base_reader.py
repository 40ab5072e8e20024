"""Bases: one file or shards with an index, and what is refused when the two disagree."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from folders import base, base_tensors, tensor, tensor_file
from rankloom.base import reader
from rankloom.errors import BaseError, NotFoundError
from rankloom.fingerprint import Fingerprint
from rankloom.registry.base_record import from_record, to_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rankloom.base.model import Base

INDEX = "model.safetensors.index.json"
DIGEST = "sha256:" + "0" * 64


def shapes(found: Base) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (entry.dtype, entry.shape) for name, entry in found.tensors.items()}


def refusal(folder: Path) -> BaseError:
    with pytest.raises(BaseError) as caught:
        reader.read(folder)
    assert caught.value.findings
    return caught.value


def change_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def test_one_file_and_shards_are_the_same_tensors(tmp_path: Path) -> None:
    one = reader.read(base(tmp_path / "one"))
    three = reader.read(base(tmp_path / "three", shards=3))
    assert shapes(one) == shapes(three)
    assert len(one.files) == 1
    assert [file.name for file in three.files] == sorted(file.name for file in three.files)
    assert len(three.files) == 3
    assert one.config == {"model_type": "llama"}
    assert reader.read(tmp_path / "one/model.safetensors") == one


def test_a_checkpoint_of_transformers_is_read(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        vocab_size=64, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    found = reader.read(tmp_path)
    assert len(found.files) > 1
    assert shapes(found) == {
        name: ("F32", tuple(value.shape)) for name, value in model.state_dict().items()
    }


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = base(tmp_path / "b", shards=2)
    (folder / "model-00001-of-00002.safetensors").unlink()
    assert "model-00001-of-00002" in refusal(folder).message


def test_a_tensor_that_no_shard_holds_is_named(tmp_path: Path) -> None:
    folder = base(tmp_path / "b", shards=2)
    change_index(folder, lambda places: places.update(ghost=next(iter(places.values()))))
    assert "ghost" in refusal(folder).message


def test_a_tensor_that_the_index_does_not_list_is_named(tmp_path: Path) -> None:
    folder = base(tmp_path / "b", shards=2)
    change_index(folder, lambda places: places.pop("model.embed_tokens.weight"))
    assert "model.embed_tokens.weight" in refusal(folder).message


def test_a_tensor_in_another_shard_than_listed_is_named(tmp_path: Path) -> None:
    folder = base(tmp_path / "b", shards=2)
    name = "model.embed_tokens.weight"
    change_index(folder, lambda p: p.update({name: next(f for f in p.values() if f != p[name])}))
    assert name in refusal(folder).message


def test_a_tensor_in_two_shards_is_named(tmp_path: Path) -> None:
    folder = base(tmp_path / "b", shards=2)
    content = {name: tensor(values) for name, values in base_tensors().items()}
    for file in folder.glob("model-*.safetensors"):
        file.write_bytes(tensor_file(content))
    assert "is in" in refusal(folder).message


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": "../x.safetensors"}}',
        '{"weight_map": {"a": "/x.safetensors"}}',
        '{"weight_map": {"a": "x.bin"}}',
        '{"weight_map": {"a": "a\\\\b.safetensors"}}',
        '{"weight_map": {"a": "model-00000-of-00002.safetensors"}, "weight_map": {}}',
    ],
)
def test_a_broken_index_is_refused(text: str, tmp_path: Path) -> None:
    folder = base(tmp_path / "b", shards=2)
    (folder / INDEX).write_text(text)
    refusal(folder)


def test_a_file_beside_the_shards_is_ambiguous(tmp_path: Path) -> None:
    folder = base(base(tmp_path / "b"), shards=2)
    assert "model.safetensors" in refusal(folder).message


def test_several_files_without_index_are_ambiguous(tmp_path: Path) -> None:
    folder = base(tmp_path / "b", shards=2)
    (folder / INDEX).unlink()
    assert "index" in refusal(folder).message


def test_pickled_weights_say_how_to_save_them(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert "safe_serialization" in refusal(tmp_path).hint


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1, "a": 2}', '{"a": NaN}'])
def test_a_broken_config_is_refused(text: str, tmp_path: Path) -> None:
    folder = base(tmp_path / "b")
    (folder / "config.json").write_text(text)
    assert "config.json" in refusal(folder).message


def test_a_broken_file_is_the_base_s_error(tmp_path: Path) -> None:
    folder = base(tmp_path / "b")
    with (folder / "model.safetensors").open("ab") as stream:
        stream.write(b"x")
    assert refusal(folder).findings[0].rule == "FMT007"


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        reader.read(tmp_path / "nothing")


def test_a_record_gives_back_names_shapes_and_config(tmp_path: Path) -> None:
    found = reader.read(base(tmp_path / "b", hidden_size=8))
    record = to_record(found, "tiny", Fingerprint(struct=DIGEST), "acme/tiny")
    copy = from_record(type(record).model_validate_json(record.model_dump_json()))
    assert shapes(copy) == shapes(found)
    assert copy.config == found.config
    assert copy.files == ()
    assert (record.name, record.source) == ("tiny", "acme/tiny")


def test_shapes_of_any_dtype_are_recorded(tmp_path: Path) -> None:
    found = reader.read(base(tmp_path / "b", {"w": tensor(np.zeros((3, 2), np.int8))}))
    record = to_record(found, "tiny", Fingerprint(struct=DIGEST))
    assert record.tensors["w"].dtype == "I8"
