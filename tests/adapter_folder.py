"""Small adapters and bases as folders, written without torch, for tests that push them."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from rankloom import digest as digests
from rankloom.base.fingerprint import measure
from rankloom.fingerprint import Fingerprint
from rankloom.manifest import FileEntry, Manifest
from rankloom.ref import AdapterName
from rankloom.registry import sending
from rankloom.registry.base_record import from_record
from rankloom.registry.protocol import Registry
from rankloom.registry.push import send as send_all
from rankloom.registry.wire import (
    BaseRecord,
    BaseTensorShape,
    Upload,
    UploadRequest,
    Version,
)

MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj")
WIDTH = 8
CONFIG = {"model_type": "llama"}


def write_adapter(folder: Path, *, seed: int = 0, rank: int = 4, width: int = WIDTH) -> Path:
    """Write a LoRA adapter in PEFT's form; another seed is another content."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    tensors = {}
    for module in MODULES:
        prefix = f"base_model.model.{module}"
        a, b = random.normal(size=(rank, width)), random.normal(size=(width, rank))
        tensors[f"{prefix}.lora_A.weight"] = a.astype(np.float32)
        tensors[f"{prefix}.lora_B.weight"] = b.astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"]}
    config["base_model_name_or_path"] = "acme/unrecorded"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def write_base(folder: Path, *, seed: int = 7) -> Path:
    """Write a base that those adapters fit; another seed is another content."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    tensors = {
        f"{module}.weight": random.normal(size=(WIDTH, WIDTH)).astype(np.float32)
        for module in (*MODULES, "model.norm")
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def write_large_adapter(folder: Path, nbytes: int) -> Path:
    """Write a LoRA adapter whose weights have at least so many bytes."""
    width = nbytes // (2 * len(MODULES) * 64 * 4) + 1
    return write_adapter(folder, rank=64, width=width)


def manifest_of(folder: Path, base: Fingerprint | None = None) -> Manifest:
    """Return the manifest of every file in a folder."""
    files = [
        FileEntry(
            path=path.relative_to(folder).as_posix(),
            size=path.stat().st_size,
            digest=digests.of_file(path),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return Manifest(files=tuple(files), base=base)


def fingerprint(seed: int = 0) -> Fingerprint:
    """Return a fingerprint; equal struct, but other values for another seed."""
    shapes = [[f"{module}.weight", [WIDTH, WIDTH]] for module in MODULES]
    return Fingerprint(
        cfg=digests.of_json(CONFIG),
        struct=digests.of_json(sorted(shapes)),
        exact=digests.of_bytes(b"exact %d" % seed),
        bf16=digests.of_bytes(b"bf16 %d" % seed),
    )


def base_record(name: str = "tiny", *, seed: int = 0) -> BaseRecord:
    """Return the record of a base that the adapters fit."""
    shape = BaseTensorShape(dtype="F32", shape=(WIDTH, WIDTH))
    return BaseRecord(
        name=name,
        fingerprint=fingerprint(seed),
        source="a test",
        config=CONFIG,
        tensors={f"{module}.weight": shape for module in MODULES},
    )


def with_its_fingerprint(record: BaseRecord) -> BaseRecord:
    """Return a record whose fingerprint says of config and shapes what the record does."""
    found = measure(from_record(record), values=False).fingerprint
    levels = {"cfg": found.cfg, "struct": found.struct}
    return record.model_copy(update={"fingerprint": record.fingerprint.model_copy(update=levels)})


def send(folder: Path, upload: Upload) -> int:
    """Send what an upload misses; return how many blobs that was."""
    files = {entry.digest: entry for entry in manifest_of(folder).files}
    for target in upload.missing:
        entry = files[target.digest]
        assert sending.put(folder / entry.path, entry.size, target) is None
    return len(upload.missing)


def push(
    registry: Registry,
    folder: Path,
    name: str = "zh-lang",
    *,
    base: str | None = None,
    made_for: Fingerprint | None = None,
    card: str | None = None,
) -> Version:
    """Push a folder in the three steps of the protocol."""
    request = UploadRequest(manifest=manifest_of(folder, made_for), base=base, card=card)
    return registry.publish(send_all(registry, folder, AdapterName.parse(name), request))
