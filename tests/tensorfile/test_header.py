"""Headers: each refused row of the corpus by its id, and the format's own library as oracle."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from folders import file_bytes, header_of, tensor, tensor_file
from rankloom.errors import AdapterError, BaseError, NotFoundError
from rankloom.finding import Severity
from rankloom.tensorfile.header import (
    Header,
    HeaderLimits,
    header_length,
    parse_header,
    read_header,
)
from timing import fastest

HERE = Path("x.safetensors")
ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
FOUR = bytes(4)


def parse(data: bytes) -> Header:
    return parse_header(data, len(data), HERE)


def entry(**fields: object) -> bytes:
    return file_bytes({"a": {**ONE, **fields}}, FOUR)


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("evil.pkl", b"x")
    return stream.getvalue()


def text(header: str, data: bytes = FOUR) -> bytes:
    return file_bytes(header.encode(), data)


E1 = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
CORPUS = [
    ("FMT001", b""),
    ("FMT001", b"\x08\0\0"),
    ("FMT002", (100_000_001).to_bytes(8, "little") + b"{}"),
    ("FMT002", b"\xff" * 8 + b"{}"),
    ("FMT003", (1000).to_bytes(8, "little") + b"{}"),
    ("FMT004", file_bytes(b'{"\xff":1}')),
    ("FMT004", file_bytes(b"[]")),
    ("FMT004", file_bytes(b"")),
    ("FMT004", file_bytes(b"\xef\xbb\xbf{}")),
    ("FMT004", file_bytes('{"a":1}'.encode("utf-16"))),
    ("FMT004", file_bytes(b'{"a":' * 200_000)),
    ("FMT004", file_bytes(b"[" * 200_000)),
    ("FMT004", file_bytes(b"{} {}")),
    ("FMT004", text('{"a":' + E1[:-1] + ',"x":NaN}}')),
    ("FMT004", text('{"a":' + E1[:-1] + ',"extra":1}}')),
    ("FMT004", text('{"a":["F32",[1],[0,4]]}')),
    ("FMT004", text('{"__metadata__":null,"a":' + E1 + "}")),
    ("FMT004", text('{"__metadata__":{"a":1}}', b"")),
    ("FMT004", text('{"a":' + "9" * 5000 + "}")),
    ("FMT005", text(f'{{"a":{E1},"a":{E1}}}')),
    ("FMT005", text(f'{{"a":{E1},"a":{{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}}}')),
    ("FMT005", text('{"__metadata__":{"x":"1"},"__metadata__":{"x":"2"}}', b"")),
    ("FMT005", text('{"__metadata__":{"x":"1","x":"2"}}', b"")),
    ("FMT006", file_bytes({"a": ONE, "b": ONE}, FOUR)),
    ("FMT006", file_bytes({"a": {**ONE, "data_offsets": [4, 8]}}, bytes(8))),
    (
        "FMT006",
        file_bytes({"a": ONE, "b": {**ONE, "data_offsets": [8, 12]}}, bytes(12)),
    ),
    ("FMT006", entry(data_offsets=[4, 0])),
    ("FMT006", entry(data_offsets=[0])),
    ("FMT006", entry(data_offsets=[0, 4.0])),
    ("FMT006", entry(data_offsets=[-4, 0])),
    ("FMT007", file_bytes({"a": ONE}, bytes(5))),
    ("FMT007", tensor_file({"a": tensor(np.zeros(3, np.float32))}) + zipped()),
    ("FMT008", file_bytes({"a": ONE}, bytes(3))),
    ("FMT009", entry(shape=[1 << 32, 1 << 32])),
    ("FMT009", entry(shape=[1 << 32, 1 << 32, 0], data_offsets=[0, 0])),
    ("FMT009", entry(shape=[2])),
    ("FMT009", entry(shape=[-1])),
    ("FMT009", entry(shape=[1.0])),
    ("FMT009", entry(shape=[True])),
    ("FMT009", entry(shape=["1"])),
    ("FMT009", entry(shape=1)),
    ("FMT009", text('{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', b"")),
    ("FMT010", entry(dtype="F31")),
    ("FMT010", entry(dtype="f32")),
    ("FMT010", entry(dtype=None)),
    ("FMT010", entry(dtype=["F32"])),
    (
        "FMT011",
        file_bytes({f"t{n}": {**ONE, "shape": [0], "data_offsets": [0, 0]} for n in range(20_000)}),
    ),
    ("FMT012", file_bytes({"": ONE}, FOUR)),
    ("FMT012", file_bytes({"a\0": ONE}, FOUR)),
    ("FMT012", file_bytes({"../../etc/passwd": ONE}, FOUR)),
    ("FMT012", file_bytes({"/etc/passwd": ONE}, FOUR)),
    ("FMT012", file_bytes({"a\\b": ONE}, FOUR)),
    ("FMT012", file_bytes({"a\u202eb": ONE}, FOUR)),
    ("FMT012", file_bytes({"k" * 1_000_000: ONE}, FOUR)),
    ("FMT012", text('{"\\ud800":' + E1 + "}")),
    (
        "FMT014",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n",
    ),
    ("FMT015", pickle.dumps({"a": [1] * 300}, protocol=2)),
    ("FMT015", pickle.dumps({"a": [1] * 300}, protocol=4)),
    ("FMT015", pickle.dumps({"a": [1] * 300}, protocol=5)),
    ("FMT015", zipped()),
    ("FMT015", b"\x1f\x8b\x08\x00" + bytes(60)),
    ("FMT015", b"GGUF" + b"\x03\0\0\0" + bytes(60)),
    ("FMT016", file_bytes({"__metadata__": {"a": "x" * 65_536}})),
    ("FMT016", file_bytes({"__metadata__": {"a": "\x1b[31mred"}})),
    ("FMT016", file_bytes({"__metadata__": {"a\0": "b"}})),
]


@pytest.mark.parametrize(
    ("rule", "data"), CORPUS, ids=[f"{n}-{c[0]}" for n, c in enumerate(CORPUS)]
)
def test_each_broken_file_gets_its_rule(rule: str, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(AdapterError) as caught:
        parse(data)
    assert [finding.rule for finding in caught.value.findings] == [rule]
    assert caught.value.message.startswith(rule)
    assert len(caught.value.message) < 500
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(data)
    with pytest.raises(BaseError) as caught:
        read_header(path, error=BaseError)
    assert caught.value.findings[0].rule == rule
    assert str(path) in caught.value.message


def test_lfs_pointer_says_what_to_do() -> None:
    with pytest.raises(AdapterError) as caught:
        header_length(b"version https://", 130, HERE)
    assert caught.value.findings[0].rule == "FMT014"
    assert "git lfs pull" in caught.value.hint


@pytest.mark.parametrize("header", [b"  {}    ", b"\n{}     ", b"{}"])
def test_odd_but_harmless_headers_are_warned_of(header: bytes) -> None:
    found = parse(file_bytes(header, align=False))
    assert [(f.rule, f.severity) for f in found.findings] == [("FMT013", Severity.WARNING)]
    safetensors.deserialize(file_bytes(header, align=False))


def test_deep_nesting_within_an_entry_is_refused_without_overflow() -> None:
    deep = (
        '{"a":{"dtype":"F32","shape":' + "[" * 150_000 + "]" * 150_000 + ',"data_offsets":[0,4]}}'
    )
    with pytest.raises(AdapterError, match="FMT004"):
        parse(text(deep))


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    arrays = {
        "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a.bias": np.arange(4, dtype=np.float16),
        "scalar": np.array(7, dtype=np.int64),
        "empty": np.zeros((0, 3), np.float32),
    }
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt", "note": "two\nlines"})
    header = read_header(path)
    assert header.metadata == {"format": "pt", "note": "two\nlines"}
    assert header.findings == ()
    assert header.tensors.keys() == arrays.keys()
    data = path.read_bytes()
    for name, array in arrays.items():
        found = header.tensors[name]
        assert (found.name, found.shape, found.path) == (name, array.shape, path)
        assert data[found.start : found.end] == array.tobytes()


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_header(tmp_path / "nothing.safetensors")


def test_a_prefix_from_a_range_read_is_enough() -> None:
    data = tensor_file({"a": tensor(np.zeros((100, 100), np.float32))})
    length = header_length(data[:8], len(data), HERE)
    found = parse_header(data[: 8 + length], len(data), HERE)
    assert found.tensors["a"].shape == (100, 100)
    with pytest.raises(AdapterError, match="FMT003"):
        parse_header(data[: 7 + length], len(data), HERE)


def test_limits_are_kept() -> None:
    data = tensor_file({f"t{n}": tensor(np.zeros(1, np.float32)) for n in range(5)})
    with pytest.raises(AdapterError, match="FMT011"):
        parse_header(data, len(data), HERE, limits=HeaderLimits(tensors=4))
    with pytest.raises(AdapterError, match="FMT002"):
        parse_header(data, len(data), HERE, limits=HeaderLimits(header_bytes=40))


def accepted_by_library(data: bytes) -> dict[str, Any] | None:
    try:
        return dict(safetensors.deserialize(data))
    except safetensors.SafetensorError:
        return None


DTYPES = ["F32", "F16", "BF16", "F64", "I8", "U8", "BOOL", "F8_E4M3", "F4", "F6_E2M3", "C64", "Q9"]
VALUES = st.one_of(
    st.integers(-2, 70), st.floats(), st.booleans(), st.none(), st.text(max_size=3),
    st.just(1 << 63), st.just(1 << 64),
)  # fmt: skip
SOUND = header_of(
    {
        "m.a": tensor(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "m.b": tensor(np.arange(4, dtype=np.float16)),
        "m.c": tensor(np.zeros(0, np.float32)),
    }
)


@st.composite
def mutated_headers(draw: st.DrawFn) -> bytes:
    header = json.loads(json.dumps(SOUND))
    for _ in range(draw(st.integers(0, 3))):
        fields = header.setdefault(
            draw(st.sampled_from(["m.a", "m.b", "m.c", "new", "", ".."])), {}
        )
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets", "more"]))
        if field == "dtype":
            fields[field] = draw(st.sampled_from(DTYPES))
        elif field == "more":
            fields[field] = draw(VALUES)
        elif draw(st.booleans()) and fields.get(field):
            fields[field][draw(st.integers(0, len(fields[field]) - 1))] = draw(VALUES)
        else:
            fields[field] = draw(st.lists(VALUES, max_size=3) | st.lists(st.integers(0, 32)))
    return json.dumps(header, allow_nan=True).encode()


@given(mutated_headers(), st.integers(-4, 8), st.booleans())
def test_what_we_accept_the_library_accepts_and_sees_alike(
    header: bytes, more: int, align: bool
) -> None:
    data = file_bytes(header, bytes(max(0, 32 + more)), align=align)
    try:
        ours = parse(data)
    except AdapterError:
        return
    theirs = accepted_by_library(data)
    assert theirs is not None
    assert {n: (t.dtype, list(t.shape)) for n, t in ours.tensors.items()} == {
        name: (tensor["dtype"], tensor["shape"]) for name, tensor in theirs.items()
    }
    for name, found in ours.tensors.items():
        assert data[found.start : found.end] == bytes(theirs[name]["data"])


@given(st.data())
def test_flipped_bytes_are_never_accepted_by_us_alone(data: st.DataObject) -> None:
    sound = bytearray(file_bytes(SOUND, bytes(32)))
    for _ in range(data.draw(st.integers(1, 4))):
        sound[data.draw(st.integers(0, len(sound) - 33))] = data.draw(st.integers(0, 255))
    try:
        ours = parse(bytes(sound))
    except AdapterError:
        return
    theirs = accepted_by_library(bytes(sound))
    assert theirs is not None
    assert theirs.keys() == ours.tensors.keys()


def test_headers_of_448_tensors_are_read_in_ten_milliseconds(tmp_path: Path) -> None:
    header, position = {}, 0
    for n in range(448):
        header[f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_A.weight"] = {
            "dtype": "F16", "shape": [16, 5859], "data_offsets": [position, position + 187_488],
        }  # fmt: skip
        position += 187_488
    path = tmp_path / "adapter_model.safetensors"
    with path.open("wb") as stream:
        stream.write(file_bytes(header))
        stream.truncate(stream.tell() + position)  # 84 MB, sparse
    assert len(read_header(path).tensors) == 448
    assert fastest(lambda: read_header(path), 9) < 0.010
