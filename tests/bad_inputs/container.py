"""Rows of the tensor file."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from bad_inputs.row import PUSH, Row
from folders import PREFIX, adapter, config, factors, file_bytes, header_of, tensor, tensor_file
from rule_cases import DATA, LFS, blank_header, empty_tensors, first, header, offset_by, repeated

if TYPE_CHECKING:
    from pathlib import Path

    from bad_inputs.row import Make

KEY = next(iter(factors()))
BODY = b"".join(data for _, _, data in factors().values())
TEXT = json.dumps(header_of(factors()))


def file(content: Any, **fields: object) -> Make:  # noqa: ANN401 - tensors or bytes
    """Return what writes the usual adapter with another tensor file."""
    return lambda place: adapter(place / "adapter", content, **fields)


def beside(name: str, data: bytes) -> Make:
    """Return what writes the usual adapter and one more file."""

    def make(place: Path) -> None:
        (adapter(place / "adapter") / name).write_bytes(data)

    return make


def said(text: bytes | str) -> Make:
    """Return what writes the usual tensors under a header of this text."""
    data = text if isinstance(text, bytes) else text.encode()
    return file(file_bytes(data, BODY))


def claimed(length: int) -> Make:
    """Return what writes a file whose header claims to be that long."""
    return file(length.to_bytes(8, "little") + b"{}      ")


def pickled(place: Path) -> None:
    """Write an adapter as old versions of PEFT did."""
    folder = place / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config()))
    (folder / "adapter_model.bin").write_bytes(b"\x80\x02}q\x00.")


def zipped() -> bytes:
    """Return an archive, of a length that a tensor can have."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("payload.py", "print('hello')")
    return stream.getvalue()


def of_bytes(key: str) -> dict[str, Any]:
    """Return the usual tensors, and an archive as a tensor of bytes, by which the file ends."""
    archive = zipped()
    return {**factors(), key: ("U8", (len(archive),), archive)}


def key(name: str) -> Make:
    """Return what writes a tensor of this name more."""
    return file({**factors(), name: tensor(np.ones(2, np.float32))})


def deep(depth: int) -> str:
    """Return so many lists, one in another."""
    return '{"a":' + "[" * depth + "]" * depth + "}"


def many(value: str) -> str:
    """Return a header of very many small values, each of which becomes an object."""
    return "{" + ",".join(f'"{number}":{value}' for number in range(700_000)) + "}"


def same_range(found: dict[str, Any]) -> None:
    """Let the second tensor lie where the first does."""
    one, _, third, *_ = found
    found[third]["data_offsets"] = found[one]["data_offsets"]


def backwards(found: dict[str, Any]) -> None:
    """Let a tensor end before it begins."""
    found[KEY]["data_offsets"].reverse()


ROWS = (
    Row(1, "empty file", file(b""), "FMT001"),
    Row(2, "file of seven bytes", file(b"1234567"), "FMT001"),
    Row(3, "header of 100 MB and 1 byte", claimed(100_000_001), "FMT002"),
    Row(4, "header of 2^64-1 bytes", claimed((1 << 64) - 1), "FMT002"),
    Row(5, "header past the end", claimed(1000), "FMT003"),
    Row(6, "header not UTF-8", said(b'{"\xff\xfe": 1}'), "FMT004"),
    Row(7, "header is an array", said("[]"), "FMT004"),
    Row(8, "header 200000 lists deep", said(deep(200_000)), "FMT004"),
    Row(8, "header 50000 objects deep", said('{"a":' * 50_000 + "}" * 50_000), "FMT004"),
    Row(9, "key twice", said(repeated(TEXT, KEY)), "FMT005"),
    Row(
        10,
        "key twice of two dtypes",
        said(
            TEXT.replace(
                f'"{KEY}":', f'"{KEY}": {json.dumps(header_of(factors())[KEY])}, "{KEY}":'
            ).replace('"F32"', '"I32"', 1)
        ),
        "FMT005",
    ),
    Row(11, "metadata twice", said('{"__metadata__":{},"__metadata__":{},' + TEXT[1:]), "FMT005"),
    Row(12, "tensors overlap", file(header(same_range)), "FMT006"),
    Row(13, "hole between tensors", file(offset_by(8) + bytes(8)), "FMT006"),
    Row(14, "trailing bytes", file(DATA + b"PK"), "FMT007"),
    Row(14, "appended zip", file(DATA + zipped()), "FMT007"),
    Row(15, "truncated data", file(DATA[:-4]), "FMT008"),
    Row(16, "tensor ends before it begins", file(header(backwards)), "FMT006"),
    Row(17, "shape overflows 64 bits", file(first(shape=[1 << 62, 1 << 62])), "FMT009"),
    Row(
        17, "shape overflows 64 bits before a 0", file(first(shape=[1 << 40, 1 << 40, 0])), "FMT009"
    ),
    Row(18, "shape is not bytes", file(first(shape=[2, 9])), "FMT009"),
    Row(19, "negative dimension", file(first(shape=[-2, -8])), "FMT009"),
    Row(19, "dimension 2.0", file(first(shape=[2.0, 8])), "FMT009"),
    Row(20, "unknown dtype", file(first(dtype="F31")), "FMT010"),
    Row(20, "lower case dtype", file(first(dtype="f32")), "FMT010"),
    Row(21, "zip as tensor", file(of_bytes("polyglot")), "FMT010"),
    Row(21, "zip as factor", file(of_bytes(f"{PREFIX}x.lora_A.weight")), "FMT010"),
    Row(
        21,
        "zip as saved module",
        file(of_bytes(f"{PREFIX}lm_head.weight"), modules_to_save=["lm_head"]),
        "FMT010",
    ),
    Row(22, "20000 empty tensors", file(empty_tensors(20_000)), "FMT011"),
    Row(22, "700000 empty entries", said(many("{}")), "FMT011"),
    Row(22, "700000 empty lists", said(many("[]")), "FMT011"),
    Row(23, "key with null", key("a\0b"), "FMT012"),
    Row(23, "key empty", key(""), "FMT012"),
    Row(23, "key of 1 MB", key("a" * (1 << 20)), "FMT012"),
    Row(23, "key like a path", key("../../etc/passwd"), "FMT012"),
    Row(24, "blanks before the header", file(blank_header()), "FMT013", code=0, severity="warning"),
    Row(
        24,
        "unaligned data",
        file(file_bytes(TEXT.encode() + b" " * (3 - len(TEXT) % 8), BODY, align=False)),
        "FMT013",
        code=0,
        severity="warning",
    ),
    Row(25, "Git LFS pointer", file(LFS), "FMT014", says="git lfs pull"),
    Row(26, "pickle in disguise", file(b"\x80\x04\x95" + b"x" * 30), "FMT015"),
    Row(26, "gzip in disguise", file(b"\x1f\x8b\x08" + b"x" * 30), "FMT015"),
    Row(26, "zip in disguise", file(zipped()), "FMT015"),
    Row(27, "only a pickle", pickled, "SEC001"),
    *(
        Row(27, f"beside {name}", beside(name, b"x"), "SEC001")
        for name in ("adapter_model.bin", "model.pt", "handler.py", "libx.so", "x.gguf")
    ),
    Row(28, "metadata over 64 KB", file(tensor_file(factors(), {"a": "x" * 70_000})), "FMT016"),
    Row(28, "card of 70000 letters", beside("README.md", b"x" * 70_000), "", PUSH, 6, says="65536"),
    Row(28, "metadata clears the screen", file(tensor_file(factors(), {"a": "\x1b[2J"})), "FMT016"),
)
