"""For every rule an adapter that breaks it, and one that comes close and does not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adapter_folder import manifest_of
from folders import (
    PREFIX,
    SHAPES,
    adapter,
    base,
    base_tensors,
    config,
    factors,
    file_bytes,
    header_of,
    tensor,
    tensor_file,
)
from rankloom.base import reader as bases
from rankloom.base.fingerprint import fingerprint
from rankloom.validate import Report, validate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[[Path], Report]

Q = "model.layers.0.self_attn.q_proj"
ARRAYS = base_tensors()
DATA = tensor_file(factors())
HEAD = {**SHAPES, "lm_head": (10, 8)}
HEADED = {"target_modules": ["q_proj", "v_proj", "lm_head"]}
SQUARE = {"mix": (8, 8)}
SQUARE_ARRAYS = {"mix.weight": np.ones((8, 8), np.float32), "mix.bias": np.ones(8, np.float32)}
MIX = {"target_modules": ["mix"]}


@dataclass(frozen=True)
class Case:
    """What breaks a rule, and what is next to it."""

    broken: Make
    sound: Make


def on(
    tensors: Any = None,  # noqa: ANN401 - tensors or bytes
    files: dict[str, str] | None = None,
    arrays: dict[str, Any] | None = None,
    expected: dict[str, Any] | None = None,
    base_fields: dict[str, Any] | None = None,
    base_files: dict[str, str] | None = None,
    text: str | None = None,
    **fields: object,
) -> Make:
    """Return what makes an adapter and a base and validates them.

    Args:
        tensors: of the adapter, or its tensor file's bytes.
        files: more files of its folder.
        arrays: tensors of the base.
        expected: tensors of the base that it was made for.
        base_fields: fields of the base's config.
        base_files: more files of its folder.
        text: the whole text of the adapter's config.
        fields: fields of the adapter's config.
    """

    def make(place: Path) -> Report:
        folder = adapter(place / "adapter", tensors, **fields)
        if text is not None:
            (folder / "adapter_config.json").write_text(text)
        for name, content in (files or {}).items():
            (folder / name).write_text(content)
        content = {name: tensor(values) for name, values in (arrays or ARRAYS).items()}
        model = bases.read(base(place / "base", content, **(base_fields or {})))
        for name, told in (base_files or {}).items():
            (model.path / name).write_text(told)
        found = fingerprint(model)
        other = {name: tensor(values) for name, values in (expected or {}).items()}
        wanted = fingerprint(bases.read(base(place / "other", other))) if expected else None
        return validate(folder, model, expected=wanted, found=found)

    return make


def header(change: Callable[[dict[str, Any]], None], data: bytes | None = None) -> bytes:
    """Return the usual tensor file with a changed header."""
    content = header_of(factors())
    change(content)
    body = b"".join(part for _, _, part in factors().values()) if data is None else data
    return file_bytes(content, body)


def first(**entry: object) -> bytes:
    """Return the usual tensor file, with other values in the entry of its first tensor."""
    return header(lambda found: found[next(iter(found))].update(entry))


def with_keys(rename: Callable[[str], str]) -> dict[str, Any]:
    """Return the usual factors under other keys."""
    return {rename(key): value for key, value in factors().items()}


def with_factor(leaf: str, values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return the usual factors, but one."""
    return {**factors(), f"{PREFIX}{Q}.{leaf}.weight": tensor(values)}


def as_dtype(dtype: type[Any]) -> dict[str, Any]:
    """Return factors of another dtype."""
    shapes = {key: shape for key, (_, shape, _) in factors().items()}
    return {key: tensor(np.ones(shape, dtype)) for key, shape in shapes.items()}


def zeros(leaf: str) -> dict[str, Any]:
    """Return the usual factors with zeros for all A or all B."""
    return {
        key: tensor(np.zeros(shape, np.float32)) if leaf in key else (dtype, shape, data)
        for key, (dtype, shape, data) in factors().items()
    }


def layers(count: int, *, without: str = "") -> dict[str, Any]:
    """Return factors for two modules in each of some layers, but one."""
    names = [f"model.layers.{n}.self_attn.{m}" for n in range(count) for m in ("q_proj", "v_proj")]
    return factors({name: (6, 8) for name in names if name != without})


def tensors_of_base(count: int) -> dict[str, Any]:
    """Return the base of such factors."""
    names = [f"model.layers.{n}.self_attn.{m}" for n in range(count) for m in ("q_proj", "v_proj")]
    return base_tensors(dict.fromkeys(names, (6, 8)))


def repeated(text: str, key: str) -> str:
    """Return the text of a JSON object in which a key comes twice."""
    return text.replace(f'"{key}":', f'"{key}": 7, "{key}":', 1)


def blank_header() -> bytes:
    """Return the usual file with blanks before its header."""
    text = b"        " + json.dumps(header_of(factors())).encode()
    return file_bytes(text, b"".join(part for _, _, part in factors().values()))


def empty_tensors(count: int) -> dict[str, Any]:
    """Return the usual factors and many tensors without a value."""
    nothing = tensor(np.zeros((0,), np.float32))
    return {**factors(), **{f"{PREFIX}x{n}.lora_A.weight": nothing for n in range(count)}}


def poisoned(value: float) -> dict[str, Any]:
    """Return the usual factors with one value replaced."""
    values = np.ones((2, 8), np.float32)
    values[1, 7] = value
    return with_factor("lora_A", values)


def offset_by(count: int) -> bytes:
    """Return the usual file with its last tensor moved."""

    def move(found: dict[str, Any]) -> None:
        offsets = found[list(found)[-1]]["data_offsets"]
        offsets[0] += count
        offsets[1] += count

    return header(move)


def flipped(**fields: object) -> Make:
    """Return what changes the config beside recorded weights."""

    def make(place: Path) -> Report:
        folder = adapter(place / "adapter")
        (folder / "rankloom.json").write_bytes(manifest_of(folder).canonical())
        return validate(adapter(folder, **fields))

    return make


def embedding(rows: int) -> dict[str, Any]:
    """Return the usual factors and an embedding of so many rows."""
    name = f"{PREFIX}model.embed_tokens.weight"
    return {**factors(), name: tensor(np.ones((rows, 8), np.float32))}


def one_larger(times: float) -> dict[str, Any]:
    """Return factors for some layers, of which one B is larger."""
    content = layers(4)
    name = f"{PREFIX}{Q}.lora_B.weight"
    dtype, shape, data = content[name]
    values = np.frombuffer(data, np.float32) * np.float32(times)
    return {**content, name: (dtype, shape, values.tobytes())}


EMBEDDED = {"modules_to_save": ["embed_tokens"]}
NESTED = "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}"
SOUND = on()
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n"
CONFIG = json.dumps(config())

CASES: dict[str, Case] = {
    "FMT001": Case(on(b"1234567"), on(DATA)),
    "FMT002": Case(on((100_000_001).to_bytes(8, "little") + b"{}"), on(DATA)),
    "FMT003": Case(on(DATA[:100]), on(DATA)),
    "FMT004": Case(on(file_bytes(b"[]      ")), SOUND),
    "FMT005": Case(
        on(file_bytes(repeated(json.dumps(header_of(factors())), next(iter(factors()))).encode())),
        SOUND,
    ),
    "FMT006": Case(on(offset_by(-8)), on(offset_by(0))),
    "FMT007": Case(on(DATA + b"PK"), on(DATA)),
    "FMT008": Case(on(DATA[:-4]), on(DATA)),
    "FMT009": Case(on(first(shape=[2, 9])), on(first(shape=[2, 8]))),
    "FMT010": Case(on(first(dtype="F31")), on(first(dtype="F32"))),
    "FMT011": Case(on(empty_tensors(65)), SOUND),
    "FMT012": Case(on({**factors(), "../../etc/passwd": tensor(np.ones(2, np.float32))}), SOUND),
    "FMT013": Case(on(blank_header()), SOUND),
    "FMT014": Case(on(LFS), on(DATA)),
    "FMT015": Case(on(b"\x80\x04\x95" + b"x" * 30), on(DATA)),
    "FMT016": Case(
        on(tensor_file(factors(), {"a": "\x1b[2J"})),
        on(tensor_file(factors(), {"a": "two\nlines"})),
    ),
    "CFG001": Case(on(text="{"), on(text=CONFIG)),
    "CFG002": Case(on(text=repeated(CONFIG, "r")), on(text=CONFIG)),
    "CFG003": Case(on(peft_type=None), SOUND),
    "CFG004": Case(on(r=True), on(r=2)),
    "CFG005": Case(on(lora_alpha=0), on(lora_alpha=0.5)),
    "CFG006": Case(on(target_modules=["q_proj"]), on(target_modules=r".*\.[qv]_proj")),
    "CFG007": Case(on(use_dora=True), on(use_dora=False)),
    "CFG008": Case(flipped(use_rslora=True), flipped()),
    "CFG009": Case(on(layer_replication=[[0, 1], [0, 1]]), on(layer_replication=None)),
    "CFG010": Case(on(init_lora_weights="loftq"), on(init_lora_weights="gaussian")),
    "CFG011": Case(on(new_field=7), on(new_field=None)),
    "CFG012": Case(on(alora_invocation_tokens=[1]), on(alora_invocation_tokens=None)),
    "TEN001": Case(on(with_keys(lambda key: key.removeprefix("base_model."))), SOUND),
    "TEN002": Case(
        on({key: value for key, value in factors().items() if key != next(iter(factors()))}), SOUND
    ),
    "TEN003": Case(
        on(with_factor("lora_A", np.ones((8, 2), np.float32))),
        on(with_factor("lora_A", np.ones((2, 8), np.float32))),
    ),
    "TEN004": Case(on(r=3), on(r=3, rank_pattern={"q_proj": 2, "v_proj": 2})),
    "TEN005": Case(
        on(layers(3), arrays=tensors_of_base(2)), on(layers(2), arrays=tensors_of_base(3))
    ),
    "TEN006": Case(
        on(layers(4, without="model.layers.2.self_attn.v_proj"), arrays=tensors_of_base(4)),
        on(layers(4), arrays=tensors_of_base(4)),
    ),
    "TEN007": Case(on(as_dtype(np.int8)), on(as_dtype(np.float16))),
    "TEN008": Case(
        on(with_factor("lora_A", np.ones((2, 8), np.float16))),
        on(with_factor("lora_A", np.ones((2, 8), np.float32))),
    ),
    "TEN009": Case(
        on({**factors(), f"{PREFIX}{Q}.other.thing": tensor(np.ones(2, np.float32))}), SOUND
    ),
    "BASE001": Case(
        lambda place: validate(adapter(place / "a", base_model_name_or_path=None)),
        lambda place: validate(adapter(place / "a")),
    ),
    "BASE002": Case(on(arrays={**ARRAYS, f"{Q}.weight": np.zeros((6, 9), np.float32)}), SOUND),
    "BASE003": Case(on(expected=base_tensors(seed=2)), on(expected=ARRAYS)),
    "BASE004": Case(
        on(factors(HEAD), base_fields={"tie_word_embeddings": True}, **HEADED),
        on(
            factors(HEAD),
            arrays={**ARRAYS, "lm_head.weight": np.ones((10, 8), np.float32)},
            base_fields={"tie_word_embeddings": False},
            **HEADED,
        ),
    ),
    "BASE005": Case(on(embedding(12), **EMBEDDED), on(embedding(10), **EMBEDDED)),
    "BASE006": Case(
        on(arrays={**ARRAYS, f"{Q}.weight": np.zeros((6, 4), np.int8)}),
        on(arrays={**ARRAYS, "model.other.weight": np.zeros((6, 4), np.int8)}),
    ),
    "BASE008": Case(
        on(factors(SQUARE), arrays=SQUARE_ARRAYS, base_fields={"model_type": None}, **MIX),
        on(factors(SQUARE), arrays=SQUARE_ARRAYS, **MIX),
    ),
    "NUM001": Case(on(poisoned(np.inf)), on(poisoned(3e38))),
    "NUM002": Case(
        on(one_larger(1e6), arrays=tensors_of_base(4)),
        on(one_larger(20), arrays=tensors_of_base(4)),
    ),
    "NUM003": Case(on(zeros("lora_B")), on(with_factor("lora_B", np.zeros((6, 2), np.float32)))),
    "SEC001": Case(on(files={"handler.py": ""}), on(files={"README.md": ""})),
    "SEC002": Case(on(auto_map={"a": "b.c"}), on(auto_map=None)),
    "SEC003": Case(
        on(base_model_name_or_path="http://169.254.169.254/"),
        on(base_model_name_or_path="acme/tiny"),
    ),
    "SEC004": Case(on(files={"readme.md": "", "README.md": ""}), on(files={"README.md": ""})),
    "SEC005": Case(
        on(files={"chat_template.jinja": "{{ a }}"}, base_files={"chat_template.jinja": "{{ b }}"}),
        on(files={"chat_template.jinja": "{{ a }}"}, base_files={"chat_template.jinja": "{{ a }}"}),
    ),
    "SEC006": Case(
        on(files={"chat_template.jinja": NESTED}),
        on(files={"chat_template.jinja": "{% for m in messages %}{{ '**' + m }}{% endfor %}"}),
    ),
    "SEC010": Case(on(target_modules="([a-z_.0-9]+)+!"), on(target_modules=r".*_proj")),
}
