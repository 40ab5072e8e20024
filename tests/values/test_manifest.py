import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rankloom.errors import AdapterError
from rankloom.fingerprint import Fingerprint, Level
from rankloom.manifest import RECORD, FileEntry, Manifest, read_record


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def entry(path: str, text: str = "x") -> FileEntry:
    return FileEntry(path=path, size=len(text), digest=digest(text))


BASE = Fingerprint(struct=digest("s"), exact=digest("e"), bf16=digest("b"))


def test_the_digest_is_that_of_the_canonical_json() -> None:
    manifest = Manifest(files=(entry("b"), entry("a")), base=BASE)
    written = {
        "schema": 1,
        "files": [
            {"path": "a", "size": 1, "digest": digest("x")},
            {"path": "b", "size": 1, "digest": digest("x")},
        ],
        "base": {"struct": digest("s"), "exact": digest("e"), "bf16": digest("b")},
    }
    # An independent writer of the same format.
    text = json.dumps(written, sort_keys=True, separators=(",", ":"))
    assert manifest.canonical() == text.encode()
    assert manifest.digest == digest(text)


@given(st.permutations(["adapter_config.json", "adapter_model.safetensors", "LICENSE"]))
def test_the_order_of_files_does_not_matter(order: list[str]) -> None:
    straight = Manifest(files=tuple(entry(path, path) for path in sorted(order)))
    assert Manifest(files=tuple(entry(path, path) for path in order)).digest == straight.digest


def test_everything_that_decides_the_result_changes_the_digest() -> None:
    manifests = [
        Manifest(files=(entry("a"),)),
        Manifest(files=(entry("b"),)),
        Manifest(files=(entry("a", "y"),)),
        Manifest(files=(entry("a"),), base=BASE),
        Manifest(files=(entry("a"),), base=Fingerprint(struct=digest("s"))),
        Manifest(files=(entry("a"),), lock={"weights": [1.0]}),
        Manifest(files=(entry("a"),), lock={"weights": [1.5]}),
    ]
    assert len({manifest.digest for manifest in manifests}) == len(manifests)


def test_a_manifest_reads_back_the_same() -> None:
    manifest = Manifest(files=(entry("a"),), base=BASE, lock={"weights": [1, -0.5]})
    assert Manifest.model_validate_json(manifest.canonical()) == manifest


@pytest.mark.parametrize(
    "path", ["../a", "/a", "a/../b", "a//b", "./a", "a\\b", "", "a\x00", "a\n", "\u202egnp.a", ".."]
)
def test_paths_that_leave_the_folder_are_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        entry(path)


@pytest.mark.parametrize("content", ["", "[]", '{"files": []}', '{"schema": 2, "files": []}'])
def test_a_broken_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(AdapterError):
        read_record(tmp_path)


def test_fingerprints_match_at_their_strongest_common_level() -> None:
    same_values = BASE.model_copy(update={"exact": digest("f32")})
    other_values = BASE.model_copy(update={"exact": digest("o"), "bf16": digest("o")})
    only_shapes = Fingerprint(struct=BASE.struct)
    assert BASE.match(BASE) is Level.EXACT
    assert BASE.match(same_values) is Level.BF16
    assert BASE.match(only_shapes) is Level.STRUCT
    assert BASE.match(other_values) is None
    assert BASE.match(Fingerprint(struct=digest("t"))) is None
