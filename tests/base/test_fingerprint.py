"""Fingerprints: what must not change them does not, and everything else does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from folders import base, base_tensors, file_bytes, header_of, tensor
from rankloom import digest
from rankloom.base import fingerprint_cache, reader
from rankloom.base.fingerprint import Leaf, fingerprint, fingerprint_of
from rankloom.errors import BaseError
from rankloom.fingerprint import Fingerprint, Level
from rankloom.registry.base_record import from_record, to_record
from rankloom.tensorfile.values import bf16_bits

ARRAYS = base_tensors()
FILES = st.from_regex(r"[a-z]{1,8}\.safetensors", fullmatch=True)


def in_memory(tensors: dict[str, np.ndarray[Any, Any]], **config: object) -> Fingerprint:
    return fingerprint_of(map(leaf, tensors, tensors.values()), config)


def leaf(name: str, values: np.ndarray[Any, Any]) -> Leaf:
    dtype, shape, data = tensor(values)
    return Leaf(name, dtype, shape, lambda: [data], len(data))


def as_bf16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return bf16_bits(values)


def as_f32(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


EXPECTED = in_memory(ARRAYS)


def test_the_definition_written_out() -> None:
    tensors = {"b": np.arange(3, dtype=np.float32), "a": np.arange(2, dtype=np.int64)}

    def h(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    def leaf_of(name: str, dtype: str, shape: str, data: bytes) -> bytes:
        return h(b"v1\0" + f'["{name}","{dtype}",{shape}]'.encode() + b"\0" + h(data))

    rounded = bf16_bits(tensors["b"]).tobytes()
    a = leaf_of("a", "I64", "[2]", tensors["a"].tobytes())
    exact = h(b"v1\0" + a + leaf_of("b", "F32", "[3]", tensors["b"].tobytes()))
    bf16 = h(b"v1\0" + a + leaf_of("b", "BF16", "[3]", rounded))
    assert in_memory(tensors, hidden_size=3, hidden_act="silu") == Fingerprint(
        cfg=digest.of_bytes(b'{"hidden_size":3}'),
        struct=digest.of_bytes(b'[["a",[2]],["b",[3]]]'),
        exact="sha256:" + exact.hex(),
        bf16="sha256:" + bf16.hex(),
    )


METADATA = st.dictionaries(
    st.text("abc", min_size=1, max_size=3), st.text("abc é\n", max_size=9), max_size=2
)


@settings(max_examples=1000)
@given(
    order=st.permutations(list(ARRAYS)),
    places=st.lists(st.integers(0, 3), min_size=len(ARRAYS), max_size=len(ARRAYS)),
    names=st.lists(FILES, min_size=4, max_size=4, unique=True),
    metadata=METADATA,
    blanks=st.integers(0, 9),
)
def test_sharding_order_names_metadata_and_alignment_change_nothing(
    order: list[str],
    places: list[int],
    names: list[str],
    metadata: dict[str, str],
    blanks: int,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weight_map = {key: names[place] for key, place in zip(order, places, strict=True)}
        for file in set(weight_map.values()):
            content = {key: tensor(ARRAYS[key]) for key in order if weight_map[key] == file}
            header = {"__metadata__": metadata, **header_of(content)}
            text = json.dumps(header).encode() + b" " * blanks
            data = b"".join(part for _, _, part in content.values())
            (folder / file).write_bytes(file_bytes(text, data, align=False))
        index = {"metadata": metadata, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        (folder / "config.json").write_text(json.dumps({"_name_or_path": names[0]}))
        if "model.safetensors" in names:
            return  # a single file beside an index is refused as ambiguous
        assert fingerprint(reader.read(folder)) == EXPECTED


@settings(max_examples=1000)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b.c", "d"]),
        st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=9).map(
            lambda codes: np.array(codes, np.uint16)
        ),
        min_size=1,
    )
)
def test_a_lossless_cast_changes_exact_only(bits: dict[str, np.ndarray[Any, Any]]) -> None:
    bits = {
        name: np.where(_is_nan(codes), 0, codes).astype(np.uint16) for name, codes in bits.items()
    }
    narrow = in_memory(bits)
    wide = in_memory({name: as_f32(codes) for name, codes in bits.items()})
    double = in_memory({name: as_f32(codes).astype(np.float64) for name, codes in bits.items()})
    assert (narrow.struct, narrow.bf16) == (wide.struct, wide.bf16) == (double.struct, double.bf16)
    assert len({narrow.exact, wide.exact, double.exact}) == 3
    assert narrow.match(wide) is Level.BF16
    assert narrow.exact == narrow.bf16


def _is_nan(codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (codes & 0x7FFF) > 0x7F80


def test_an_original_and_its_bf16_copy_agree() -> None:
    original = in_memory(ARRAYS)
    copy = in_memory({name: as_bf16(values) for name, values in ARRAYS.items()})
    assert original.match(copy) is Level.BF16


@settings(max_examples=1000)
@given(st.data())
def test_one_changed_bit_is_seen_wherever_it_is(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([np.float32, np.float16, np.uint16, np.int64, np.uint8]))
    before = {name: values.astype(dtype) for name, values in ARRAYS.items()}
    after = {name: values.copy() for name, values in before.items()}
    values = after[data.draw(st.sampled_from(sorted(after)))]
    bits = values.reshape(-1).view(np.uint8)
    place = data.draw(st.integers(0, 8 * bits.size - 1))
    bits[place // 8] ^= 1 << place % 8
    one, two = in_memory(before), in_memory(after)
    assert one.struct == two.struct
    assert one.exact != two.exact
    # Below the precision of bfloat16 it is the base once more, at that level and by that name.
    assert one.match(two) is (Level.BF16 if one.bf16 == two.bf16 else None)
    if dtype not in {np.float32, np.float16}:
        assert one.bf16 != two.bf16


def test_names_and_shapes_are_part_of_it() -> None:
    before = in_memory(ARRAYS)
    renamed = {name.replace("q_proj", "k_proj"): values for name, values in ARRAYS.items()}
    reshaped = {
        **ARRAYS,
        "model.embed_tokens.weight": ARRAYS["model.embed_tokens.weight"].reshape(8, 10),
    }
    swapped = dict(zip(ARRAYS, reversed(ARRAYS.values()), strict=True))
    for other in (renamed, reshaped, swapped):
        assert in_memory(other).match(before) is None


def test_buffers_of_old_versions_are_not_the_model() -> None:
    buffers = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
        "h.0.attn.masked_bias": np.ones((), np.float32),
        "h.0.attn.bias": np.ones((1, 1, 4, 4), np.float32),
        "bert.embeddings.position_ids": np.ones((1, 4), np.int64),
    }
    assert in_memory({**ARRAYS, **buffers}) == in_memory(ARRAYS)
    bias = {"h.0.attn.bias": np.ones(4, np.float32)}
    assert in_memory({**ARRAYS, **bias}) != in_memory(ARRAYS)


HEAD = "lm_head.weight"
EMBEDDING = ARRAYS["model.embed_tokens.weight"]


OLDER = {
    "language_model.model.embed_tokens.weight": "model.language_model.embed_tokens.weight",
    "language_model.lm_head.weight": "lm_head.weight",
    "vision_tower.layers.0.weight": "model.vision_tower.layers.0.weight",
    "multi_modal_projector.linear.bias": "model.multi_modal_projector.linear.bias",
}
OLDER_QWEN = {
    "model.embed_tokens.weight": "model.language_model.embed_tokens.weight",
    "lm_head.weight": "lm_head.weight",
    "visual.blocks.0.weight": "model.visual.blocks.0.weight",
}


@pytest.mark.parametrize("pairs", [OLDER, OLDER_QWEN], ids=["llava", "qwen"])
def test_older_names_of_one_model_are_the_same_base(pairs: dict[str, str]) -> None:
    values = {old: np.full((2, 3), n, np.float32) for n, old in enumerate(pairs)}
    newer = in_memory({pairs[old]: array for old, array in values.items()})
    assert in_memory(values) == newer
    swapped = dict(zip(values, reversed(values.values()), strict=True))
    assert in_memory(swapped).match(newer) is None


def test_names_that_would_meet_stay_apart() -> None:
    both = {
        "language_model.model.x": np.zeros(2, np.float32),
        "model.language_model.x": np.ones(2, np.float32),
    }
    found = in_memory(both)
    assert found.struct == digest.of_bytes(
        b'[["language_model.model.x",[2]],["model.language_model.x",[2]]]'
    )


def test_a_tied_head_is_the_embedding_once_more() -> None:
    assert in_memory({**ARRAYS, HEAD: EMBEDDING}) == in_memory(ARRAYS)
    own = in_memory({**ARRAYS, HEAD: EMBEDDING + 1})
    assert own.exact != in_memory(ARRAYS).exact
    said = in_memory({**ARRAYS, HEAD: EMBEDDING}, tie_word_embeddings=False)
    assert said.struct != in_memory(ARRAYS).struct


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "config",
    [
        transformers.LlamaConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            vocab_size=64, bos_token_id=0, eos_token_id=1, tie_word_embeddings=True,
        ),
        transformers.GPT2Config(
            n_embd=16, n_layer=1, n_head=2, vocab_size=64, n_positions=8, bos_token_id=0,
            eos_token_id=1,
        ),
        transformers.T5Config(
            d_model=16, d_ff=32, d_kv=8, num_layers=1, num_heads=2, vocab_size=64
        ),
        transformers.BertConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            vocab_size=64, max_position_embeddings=8,
        ),
        transformers.LlavaConfig(
            vision_config=transformers.CLIPVisionConfig(
                hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                image_size=8, patch_size=4, projection_dim=16,
            ),
            text_config=transformers.LlamaConfig(
                hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                vocab_size=64, bos_token_id=0, eos_token_id=1,
            ),
        ),
        transformers.Qwen2VLConfig(
            text_config={
                "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
                "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 64,
                "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
            },
            vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2},
        ),
    ],
    ids=lambda config: str(config.model_type),
)  # fmt: skip
def test_a_live_model_has_the_fingerprint_of_its_checkpoint(
    config: transformers.PretrainedConfig, tmp_path: Path
) -> None:
    kinds = [
        transformers.AutoModelForMaskedLM, transformers.AutoModelForSeq2SeqLM,
        transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText,
    ]  # fmt: skip
    kind = next(k for k in kinds if type(config) in k._model_mapping)
    model = kind.from_config(config)
    model.save_pretrained(tmp_path)
    state = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    live = in_memory({name: value.numpy() for name, value in state.items()}, **config.to_dict())
    stored = fingerprint(reader.read(tmp_path))
    assert live.match(stored) is Level.EXACT
    assert live.cfg == stored.cfg
    half = {name: value.to(torch.bfloat16) for name, value in state.items()}
    bits = {name: value.view(torch.int16).numpy().view(np.uint16) for name, value in half.items()}
    assert in_memory(bits, **config.to_dict()).match(stored) is Level.BF16


def test_headers_alone_give_the_structure(tmp_path: Path) -> None:
    found = reader.read(base(tmp_path / "b"))
    full = fingerprint(found)
    headers = fingerprint(found, values=False)
    assert (headers.struct, headers.cfg) == (full.struct, full.cfg)
    assert headers.exact is None
    assert headers.match(full) is Level.STRUCT
    known = from_record(to_record(found, "tiny", full))
    assert fingerprint(known, values=False) == headers
    with pytest.raises(BaseError, match="record"):
        fingerprint(known)


def test_only_fields_that_decide_shapes_are_in_cfg() -> None:
    one = in_memory(ARRAYS, hidden_size=8, rope_theta=1e4, _name_or_path="x")
    two = in_memory(ARRAYS, hidden_size=8, rope_theta=1e6)
    assert one == two
    assert one.cfg != in_memory(ARRAYS, hidden_size=9).cfg
    inner = in_memory(ARRAYS, text_config={"hidden_size": 8})
    assert inner.cfg not in {None, one.cfg}


def test_progress_counts_all_bytes(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    found = reader.read(base(tmp_path / "b", shards=2))
    fingerprint(found, progress=lambda done, total: calls.append((done, total)))
    total = sum(values.nbytes for values in ARRAYS.values())
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


# --- the cache ------------------------------------------------------------------------------------


def test_a_known_state_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = reader.read(base(tmp_path / "b"))
    cache = tmp_path / "cache"
    first = fingerprint(found, cache=cache)
    monkeypatch.setattr("rankloom.tensorfile.values.raw_chunks", None)
    assert fingerprint(found, cache=cache) == first


@pytest.mark.parametrize("garbage", [b"", b"{", b"\xff" * 9, b'{"struct": "x"}'])
def test_a_corrupt_cache_costs_time_only(garbage: bytes, tmp_path: Path) -> None:
    found = reader.read(base(tmp_path / "b"))
    cache = tmp_path / "cache"
    first = fingerprint(found, cache=cache)
    for file in cache.iterdir():
        file.write_bytes(garbage)
    assert fingerprint(found, cache=cache) == first
    kept = fingerprint_cache.load(cache, fingerprint_cache.key(found))
    assert kept is not None
    assert kept.fingerprint == first


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    folder = base(tmp_path / "b")
    cache = tmp_path / "cache"
    first = fingerprint(reader.read(folder), cache=cache)
    before = (folder / "model.safetensors").stat()
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-2] ^= 0x40
    (folder / "model.safetensors").write_bytes(data)
    os.utime(folder / "model.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert fingerprint(reader.read(folder), cache=cache).exact != first.exact


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    found = reader.read(base(tmp_path / "b"))
    assert fingerprint(found, cache=tmp_path / "file").exact


MEASURE = """
import resource, sys
from pathlib import Path
from rankloom.base import reader
from rankloom.base.fingerprint import fingerprint
base = reader.read(Path(sys.argv[1]))
fingerprint(base, values=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fingerprint(base)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_base(tmp_path: Path) -> None:
    folder = base(tmp_path / "b", {"w": tensor(np.ones((4, 4), np.float32))})

    size = 256 << 20
    header = {"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(file_bytes(header))
        stream.truncate(stream.tell() + size)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, check=True
    )
    # A chunk of 4 MiB and its float32 and bf16 copies, twice for two threads, and the imports.
    assert int(done.stdout) < 64 << 10, done.stdout
