"""How long validation takes, and how fast a base is hashed; exits 1 if a limit is not kept.

* 448 tensors against a base of the shape of an 8B Llama, headers only: warm, and as a command;
* all values of an adapter of 84 MB;
* the fingerprint of a bfloat16 base beside ``hashlib.sha256`` over the same bytes, with as many
  threads, in turns; and the fingerprint of a base that is known.

Nothing is reported unless the sound adapter passes, a planted NaN and a planted shape are found,
and the fingerprint is that of the bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rankloom.adapter import reader as adapters
from rankloom.base import reader as bases
from rankloom.base.fingerprint import THREADS, fingerprint
from rankloom.tensorfile.layout import lay_out
from rankloom.validate import validate
from report import Timing, write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Shapes = Mapping[str, tuple[int, ...]]

LORACTL = Path(sys.executable).with_name("loractl")
LAYERS, HIDDEN, FFN, KEYS, VOCABULARY, RANK = 32, 4096, 14336, 1024, 128256, 16
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (FFN, HIDDEN),
    "mlp.up_proj": (FFN, HIDDEN),
    "mlp.down_proj": (HIDDEN, FFN),
}
HASHED_BYTES = 1 << 30
LIMITS = {
    "headers, warm": 0.050,
    "headers, command": 0.35,
    "values of 84 MB": 1.0,
    "known base again": 0.100,
}
LEAST_SHARE = 0.85
"""Of the speed of ``hashlib.sha256``."""


def main() -> None:
    """Measure, print and write the table."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_base(place / "base", base_shapes())
        write_adapter(place / "adapter")
        results = measure_validation(place) | measure_hashing(place)
    print(write("validation", results, packages=("rankloom", "numpy", "click")))
    sys.exit(not kept(results))


def measure_validation(place: Path) -> dict[str, object]:
    """Return the timings of validations, after checking what they find."""
    adapter, base = place / "adapter", place / "base"
    model = bases.read(base)
    check_findings(place, model)
    command = [LORACTL, "validate", f"{adapter}/", "--against", str(base), "--headers-only"]

    def run() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def headers() -> None:
        found = bases.read(base)
        validate(adapter, found, found=fingerprint(found, values=False), headers_only=True)

    return {
        "headers, warm": timed(headers, 15),
        "headers, command": timed(run, 9),
        "values of 84 MB": timed(lambda: validate(adapter), 5),
    }


def check_findings(place: Path, model: bases.Base) -> None:
    """Stop unless validation finds what is planted, and nothing else."""
    sound = validate(place / "adapter", model)
    count = len(adapters.read(place / "adapter").header.tensors)
    require(sound.ok and count == 448, f"{count} tensors: {sound.findings}")
    for rule, plant in (("NUM001", plant_nan), ("BASE002", plant_shape)):
        broken = shutil.copytree(place / "adapter", place / rule)
        plant(broken)
        report = validate(broken, model)
        require(rule in {found.rule for found in report.errors}, f"{rule} was not found")
        shutil.rmtree(broken)


def plant_nan(folder: Path) -> None:
    """Make one value of one tensor a NaN."""
    with (folder / "adapter_model.safetensors").open("r+b") as stream:
        stream.seek(-2, 2)
        stream.write(b"\xc0\x7f")


def plant_shape(folder: Path) -> None:
    """Give one factor the shape of another model."""
    write_adapter(folder, {**LINEAR, "self_attn.q_proj": (HIDDEN, HIDDEN + 2)})


def measure_hashing(place: Path) -> dict[str, object]:
    """Return the speed of fingerprint and hashlib over the same bytes, in turns."""
    shapes = {
        f"model.layers.{n}.mlp.up_proj.weight": (HIDDEN, HASHED_BYTES // HIDDEN // 16)
        for n in range(8)
    }
    write_base(place / "hashed", shapes, random=True)
    model = bases.read(place / "hashed")
    nbytes = sum(entry.nbytes for entry in model.tensors.values())
    plain = [hash_entry(entry.path, entry.start, entry.end) for entry in model.tensors.values()]
    require(fingerprint(model).exact == root(model, plain), "the fingerprint is another")
    ours, theirs = [], []
    for _ in range(5):
        theirs.append(seconds(lambda: hash_all(model)))
        ours.append(seconds(lambda: fingerprint(model)))
    cache = place / "cache"
    fingerprint(model, cache=cache)
    share = [theirs[n] / ours[n] for n in range(len(ours))]
    return {
        "fingerprint": Timing.of(ours),
        "hashlib.sha256": Timing.of(theirs),
        "share of hashlib's speed": sorted(share)[len(share) // 2],
        "gigabytes per second": nbytes / 1e9 / sorted(ours)[len(ours) // 2],
        "known base again": timed(
            lambda: fingerprint(bases.read(place / "hashed"), cache=cache), 9
        ),
    }


def hash_all(model: bases.Base) -> None:
    """Hash every tensor with hashlib alone, in as many threads as the fingerprint."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda e: hash_entry(e.path, e.start, e.end), model.tensors.values()))


def hash_entry(path: Path, start: int, end: int) -> bytes:
    """Return the SHA-256 of a part of a file, read in large parts."""
    found, buffer = hashlib.sha256(), memoryview(bytearray(4 << 20))
    with path.open("rb", buffering=0) as stream:
        stream.seek(start)
        while start < end:
            got = stream.readinto(buffer[: end - start])
            found.update(buffer[:got])
            start += got
    return found.digest()


def root(model: bases.Base, plain: list[bytes]) -> str:
    """Return the level exact from its definition."""
    found = hashlib.sha256(b"v1\0")
    for entry, content in sorted(
        zip(model.tensors.values(), plain, strict=True), key=lambda pair: pair[0].name
    ):
        shape = ",".join(map(str, entry.shape))
        head = f'["{entry.name}","{entry.dtype}",[{shape}]]'.encode()
        found.update(hashlib.sha256(b"v1\0" + head + b"\0" + content).digest())
    return f"sha256:{found.hexdigest()}"


def base_shapes() -> Shapes:
    """Return the 291 tensors of an 8B Llama."""
    shapes: dict[str, tuple[int, ...]] = {
        f"model.layers.{n}.{leaf}.weight": shape
        for n in range(LAYERS)
        for leaf, shape in LINEAR.items()
    }
    for n in range(LAYERS):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{n}.{norm}.weight"] = (HIDDEN,)
    vocabulary = (VOCABULARY, HIDDEN)
    return {
        **shapes,
        "model.embed_tokens.weight": vocabulary,
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": vocabulary,
    }


def write_base(folder: Path, shapes: Shapes, *, random: bool = False) -> None:
    """Write a bfloat16 base in four shards; without random values the files are sparse."""
    folder.mkdir()
    names = list(shapes)
    places = {}
    for shard in range(4):
        file = folder / f"model-{shard + 1:05}-of-00004.safetensors"
        tensors = [(name, "BF16", shapes[name]) for name in names[shard::4]]
        places |= dict.fromkeys(names[shard::4], file.name)
        prefix, header = lay_out(file, tensors, {"format": "pt"})
        size = max(entry.end for entry in header.tensors.values())
        with file.open("wb") as stream:
            stream.write(prefix)
            if random:
                stream.write(np.random.default_rng(shard).bytes(size - len(prefix)))
            else:
                stream.truncate(size)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"model_type": "llama", "hidden_size": HIDDEN, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))


def write_adapter(folder: Path, linear: Shapes = LINEAR) -> None:
    """Write a rank 16 adapter in bfloat16 on every linear layer."""
    folder.mkdir(exist_ok=True)
    shapes = {
        f"base_model.model.model.layers.{n}.{leaf}.lora_{factor}.weight": shape
        for n in range(LAYERS)
        for leaf, (rows, columns) in linear.items()
        for factor, shape in (("A", (RANK, columns)), ("B", (rows, RANK)))
    }
    file = folder / "adapter_model.safetensors"
    prefix, header = lay_out(file, [(name, "BF16", shape) for name, shape in shapes.items()], {})
    size = max(entry.end for entry in header.tensors.values()) - len(prefix)
    values = np.random.default_rng(0).standard_normal(size // 2, np.float32) / 64
    file.write_bytes(prefix + (values.view(np.uint32) >> 16).astype("<u2").tobytes())
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "acme/8b",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": sorted(leaf.rpartition(".")[2] for leaf in linear),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def require(condition: bool, message: str) -> None:
    """Stop without a result."""
    if not condition:
        sys.exit(f"nothing is reported: {message}")


def seconds(action: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def timed(action: Callable[[], object], runs: int) -> Timing:
    """Return the wall times of several calls after one that warms up."""
    action()
    return Timing.of([seconds(action) for _ in range(runs)])


def kept(results: dict[str, object]) -> bool:
    """Print all results beside their limits and tell whether every limit is kept."""
    fine = True
    for label, found in results.items():
        if isinstance(found, Timing):
            limit = LIMITS.get(label)
            fine &= limit is None or found.median <= limit
            beside = f", limit {limit} s" if limit else ""
            spread = f"{found.fastest:.4f} to {found.slowest:.4f}"
            print(f"{label:26} {found.median:.4f} s ({spread}){beside}")
        else:
            print(f"{label:26} {found:.3f}")
    share = results["share of hashlib's speed"]
    return fine and isinstance(share, float) and share >= LEAST_SHARE


if __name__ == "__main__":
    main()
