"""Rows of the config."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from bad_inputs.record import recorded
from bad_inputs.row import Row
from folders import PREFIX, SHAPES, adapter, config, factors, tensor
from rule_cases import CONFIG, repeated

if TYPE_CHECKING:
    from pathlib import Path

    from bad_inputs.row import Make

SLOW = "([a-z_.0-9]+)+!"
"""It hung PEFT on a model of two layers."""

URLS = (
    "file:///etc/passwd",
    "http://169.254.169.254/latest/meta-data/",
    "https://example.org/base",
    "../../base",
    r"\\host\share\base",
    "//host/share/base",
)


def fields(**values: object) -> Make:
    """Return what writes the usual adapter with other fields."""
    return lambda place: adapter(place / "adapter", **values)


def text(content: bytes | str) -> Make:
    """Return what writes the usual adapter with another text of its config."""
    data = content if isinstance(content, bytes) else content.encode()

    def make(place: Path) -> None:
        (adapter(place / "adapter") / "adapter_config.json").write_bytes(data)

    return make


def literal(name: str, value: str) -> Make:
    """Return what writes the usual config with one value spelled out."""
    return text(json.dumps(config(**{name: "@"})).replace('"@"', value))


def without(name: str) -> Make:
    """Return what writes the usual config without a field."""
    return text(json.dumps({key: value for key, value in config().items() if key != name}))


def magnitudes(*, use_dora: bool) -> Make:
    """Return what writes magnitudes of DoRA, whatever the config says."""
    vectors = {
        f"{PREFIX}{module}.lora_magnitude_vector": tensor(np.ones(rows, np.float32))
        for module, (rows, _) in SHAPES.items()
    }
    return lambda place: adapter(place / "adapter", factors() | vectors, use_dora=use_dora)


def padded(name: str) -> Make:
    """Return what writes the usual adapter with a file that has 3 GB, none of them on the disk."""

    def make(place: Path) -> None:
        with (adapter(place / "adapter") / name).open("ab") as stream:
            stream.truncate(3 << 30)

    return make


def flipped(place: Path) -> None:
    """Write a version as it was pulled, and then change the config beside the same weights."""
    recorded(adapter(place / "adapter"))
    adapter(place / "adapter", use_rslora=True)


def mapped(library: str) -> dict[str, Any]:
    """Return a class for loaders to import."""
    return {"auto_mapping": {"base_model_class": "Net", "parent_library": library}}


ROWS = (
    Row(29, "config is no JSON", text("{"), "CFG001"),
    Row(29, "byte order mark before the config", text("\ufeff" + CONFIG), "CFG001"),
    Row(29, "config over 1 MB", text(CONFIG[:-1] + " " * 1_000_000 + "}"), "CFG001"),
    Row(29, "config of 3 GB", padded("adapter_config.json"), "CFG001", sent=False),
    Row(29, "rankloom.json of 3 GB", padded("rankloom.json"), "CFG001", sent=False),
    Row(29, "config is an array", text("[]"), "CFG001"),
    Row(29, "config 100000 lists deep", text("[" * 100_000 + "]" * 100_000), "CFG001"),
    Row(29, "number of 100000 digits", literal("r", "9" * 100_000), "CFG001"),
    Row(30, "field twice", text(repeated(CONFIG, "r")), "CFG002"),
    Row(31, "type missing", without("peft_type"), "CFG003"),
    Row(31, "type unknown", fields(peft_type="LOLA"), "CFG003"),
    *(
        Row(32, f"rank {value}", literal("r", value), "CFG004")
        for value in ("0", "-4", '"4"', "true", "1e9", "1000000000", "null", "[4]")
    ),
    *(
        Row(33, f"alpha {value}", literal("lora_alpha", value), "CFG005")
        for value in ("0", "-8", '"8"', "1e400", "true", "NaN", "Infinity", "-Infinity")
    ),
    Row(
        34,
        "alpha 1.5 for ollama",
        fields(lora_alpha=1.5),
        "ENG018",
        command=("validate", "./adapter", "--engine", "ollama", "--json"),
        says="lora_alpha",
    ),
    Row(35, "slow pattern", fields(target_modules=SLOW), "SEC010"),
    Row(35, "slow pattern excluded", fields(exclude_modules=SLOW), "SEC010"),
    Row(36, "slow rank pattern", fields(rank_pattern={SLOW: 4}), "SEC010"),
    Row(36, "slow alpha pattern", fields(alpha_pattern={SLOW: 4}), "SEC010"),
    Row(37, "module without tensors", fields(target_modules=["q_proj", "v_proj", "x"]), "CFG006"),
    Row(37, "tensors without module", fields(target_modules=["q_proj"]), "CFG006"),
    Row(38, "DoRA without magnitudes", fields(use_dora=True), "CFG007"),
    Row(39, "magnitudes without DoRA", magnitudes(use_dora=False), "CFG007"),
    Row(40, "use_rslora flipped after the pull", flipped, "CFG008", sent=False, push="REG002"),
    Row(41, "auto_map", fields(auto_map={"AutoModel": "x.Model"}), "SEC002"),
    Row(41, "trust_remote_code", fields(trust_remote_code=True), "SEC002"),
    Row(41, "megatron_config", fields(megatron_config={"a": 1}), "SEC002"),
    Row(41, "megatron_core of another library", fields(megatron_core="os"), "SEC002"),
    Row(41, "auto_mapping of an unknown library", fields(**mapped("os")), "SEC002"),
    Row(
        41,
        "auto_mapping of the training script",
        fields(**mapped("__main__")),
        "SEC002",
        code=0,
        severity="warning",
    ),
    Row(42, "layer_replication 1000 times", fields(layer_replication=[[0, 1]] * 1000), "CFG009"),
    *(
        Row(43, f"init {name}", fields(init_lora_weights=name), "CFG010", push="")
        for name in ("pissa", "olora")
    ),
    *(
        Row(43, f"init {name}", fields(init_lora_weights=name), "CFG010")
        for name in ("pissa_niter_4", "corda", "loftq")
    ),
    Row(44, "unknown field", fields(new_field=7), "CFG011"),
    *(Row(45, f"base {url}", fields(base_model_name_or_path=url), "SEC003") for url in URLS),
    Row(
        45,
        "base of this machine",
        fields(base_model_name_or_path="/data/base"),
        "SEC003",
        code=0,
        severity="info",
    ),
    Row(46, "base not named", fields(base_model_name_or_path=None), "BASE001", push=""),
)
