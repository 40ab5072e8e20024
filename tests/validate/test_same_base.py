"""Which level of sameness two bases have, seen by an adapter that was made for one of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from folders import SHAPES, adapter, base, base_tensors, factors, tensor
from rankloom.client import Client
from rankloom.finding import Severity
from rankloom.fingerprint import Level

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.validate import Report

Shapes = dict[str, tuple[int, int]]
ARRAYS = base_tensors()
EMBEDDING = "model.embed_tokens.weight"
RESIZED = {**ARRAYS, EMBEDDING: np.concatenate([ARRAYS[EMBEDDING], np.ones((2, 8), np.float32)])}
HEAD = {**SHAPES, "lm_head": (10, 8)}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("RANKLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RANKLOOM_URL", raising=False)
    return Client()


def write(folder: Path, arrays: dict[str, Any], **fields: object) -> Path:
    return base(folder, {name: tensor(values) for name, values in arrays.items()}, **fields)


def made_for(
    client: Client,
    place: Path,
    arrays: dict[str, Any],
    shapes: Shapes = SHAPES,
    **fields: object,
) -> Path:
    """Return an adapter's folder whose record names a base."""
    write(place / "trained-on", arrays, **fields)
    identity = client.fingerprint(place / "trained-on")
    leaves = sorted({name.rpartition(".")[2] for name in shapes})
    folder = adapter(place / "adapter", factors(shapes), target_modules=leaves)
    files = [{"path": "adapter_config.json", "size": 1, "digest": "sha256:" + "0" * 64}]
    record = {"schema": 1, "files": files, "base": identity.model_dump(mode="json")}
    (folder / "rankloom.json").write_text(json.dumps(record))
    return folder


def check(client: Client, place: Path, arrays: dict[str, Any], shapes: Shapes = SHAPES) -> Report:
    folder = made_for(client, place, ARRAYS, shapes)
    return client.validate(folder, against=write(place / "base", arrays))


def test_a_resized_vocabulary_is_a_compatible_subset(client: Client, tmp_path: Path) -> None:
    report = check(client, tmp_path, RESIZED)
    assert report.level is Level.SUBSET
    assert report.ok
    (note,) = report.findings
    assert (note.rule, note.severity) == ("BASE003", Severity.INFO)
    assert EMBEDDING in note.message
    assert "all 4 other tensors" in note.message
    assert "BASE003" in report.checked


def other(name: str, values: Any) -> dict[str, Any]:  # noqa: ANN401 - an array
    return {**RESIZED, name: values}


Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("arrays", "shapes"),
    [
        (other(Q, ARRAYS[Q] + 1), SHAPES),  # another tensor differs, too
        ({**ARRAYS, EMBEDDING: ARRAYS[EMBEDDING] + 1}, SHAPES),  # another embedding, as large
        (other("model.extra.weight", np.ones((2, 2), np.float32)), SHAPES),
        (RESIZED, {**SHAPES, "model.embed_tokens": (10, 8)}),  # the adapter changes it
    ],
    ids=["another-layer", "another-embedding", "another-tensor", "vocabulary-adapted"],
)
def test_anything_else_is_another_base(
    arrays: dict[str, Any], shapes: Shapes, client: Client, tmp_path: Path
) -> None:
    report = check(client, tmp_path, arrays, shapes)
    assert report.level is None
    assert not report.ok
    assert "BASE003" in {found.rule for found in report.errors}


def test_the_registry_knows_the_tensors_of_a_base_by_name(client: Client, tmp_path: Path) -> None:
    folder = made_for(client, tmp_path, ARRAYS)
    client.add_base(tmp_path / "trained-on", "tiny")
    client.add_base(write(tmp_path / "base", RESIZED), "resized")
    for file in (tmp_path / "home/cache/fingerprints").iterdir():
        file.unlink()  # another machine, which never saw the recorded base
    assert client.validate(folder, against="resized").level is Level.SUBSET
    assert client.validate(folder, against="tiny").level is Level.EXACT


def test_without_the_tensors_of_the_recorded_base_it_is_another(
    client: Client, tmp_path: Path
) -> None:
    folder = made_for(client, tmp_path, ARRAYS)
    for file in (tmp_path / "home/cache/fingerprints").iterdir():
        file.unlink()
    report = client.validate(folder, against=write(tmp_path / "base", RESIZED))
    assert {found.rule for found in report.errors} == {"BASE003"}


def test_a_snapshot_of_the_hub_says_where_it_is_from(client: Client, tmp_path: Path) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    folder = write(tmp_path / "hub/models--acme--tiny-1b/snapshots" / commit, ARRAYS)
    record = client.add_base(folder, "tiny")
    assert record.source == f"acme/tiny-1b@{commit}"
    folder = adapter(tmp_path / "a", base_model_name_or_path="acme/tiny-1b")
    assert client.push(folder, "zh").base == "tiny"


# Values that bfloat16 and float16 both hold.
COARSE = {name: np.round(values * 4).astype(np.float32) / 4 for name, values in ARRAYS.items()}


def quantised_copy(place: Path, kept: dict[str, Any]) -> Path:
    """Write the base with its layers in codes, but for some, and the embedding in float16."""
    codes = {
        name.removesuffix("weight") + "qweight": tensor(np.zeros((2, 2), np.int8))
        for name in ARRAYS
        if name not in {EMBEDDING, *kept}
    }
    floats = {EMBEDDING: COARSE[EMBEDDING].astype(np.float16), **kept}
    content = codes | {name: tensor(values) for name, values in floats.items()}
    method = {"quant_method": "gptq", "bits": 4}
    return base(place, content, hidden_size=8, quantization_config=method)


@pytest.mark.parametrize(
    ("kept", "level"),
    [
        ({}, Level.DERIVED),
        ({Q: COARSE[Q]}, Level.DERIVED),
        ({Q: COARSE[Q] + 1}, None),
        ({EMBEDDING: COARSE[EMBEDDING] + 1}, None),
    ],
    ids=["copy", "one-layer-kept", "one-layer-changed", "another-embedding"],
)
def test_a_quantised_copy_is_known_by_what_it_keeps(
    kept: dict[str, Any], level: Level | None, client: Client, tmp_path: Path
) -> None:
    folder = made_for(client, tmp_path, COARSE, hidden_size=8)
    report = client.validate(folder, against=quantised_copy(tmp_path / "copy", kept))
    assert report.level is level
    (found,) = [item for item in report.findings if item.rule == "BASE003"]
    assert found.severity is (Severity.WARNING if level else Severity.ERROR)
    assert ("gptq" in found.message) is bool(level)
    assert "BASE006" in {item.rule for item in report.errors}  # adding to codes is refused
