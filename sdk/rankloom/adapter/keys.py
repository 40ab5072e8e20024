"""From an adapter's tensors to its targets: PEFT's prefix, the kinds' readers, and the rest."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from rankloom.adapter import fields, kinds
from rankloom.adapter.kinds.reading import Reading
from rankloom.adapter.kinds.saved import with_base, with_rows
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rankloom.adapter.change import Target
    from rankloom.adapter.config import AdapterConfig
    from rankloom.tensorfile.header import TensorEntry

PREFIX = "base_model.model."
_SHOWN = 3
_MAGNITUDE = "lora_magnitude_vector"
_UNKNOWN = (
    "CFG012",
    "asks for what rankloom cannot apply",
    "merge the adapter with PEFT, or train it without this option",
)


def read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    """Return the targets of an adapter and everything that is wrong with its tensors."""
    shared = {key for key in tensors if kinds.is_shared(config.peft_type, key)}
    own = {key: entry for key, entry in tensors.items() if key not in shared}
    plain = {key.removeprefix(PREFIX): entry for key, entry in own.items() if _is_ours(key)}
    plain |= {key: tensors[key] for key in shared}
    findings = [*_prefixes(own), *_options(config), *_dora(config, plain)]
    targets: list[Target] = []
    left = dict(plain)
    for reader in kinds.readers(config.peft_type):
        reading = reader(config, left)
        targets += reading.targets
        findings += reading.findings
        left = {key: entry for key, entry in left.items() if key not in reading.taken}
    findings += _leftover(left)
    findings += _bytes([*left.values(), *(own[key] for key in own if not _is_ours(key))])
    if not tensors:
        findings.append(Finding("TEN002", "the adapter holds no tensor", fix="save it again"))
    if kinds.may_be_conv1d(config):
        targets = [replace(target, fan_in_fan_out=True) for target in targets]
    targets = sorted(with_base(with_rows(targets)), key=lambda target: target.name)
    return Reading(tuple(targets), frozenset(tensors), tuple(findings))


def _is_ours(key: str) -> bool:
    return key.startswith(PREFIX) and not key.startswith(PREFIX + "base_model.")


def _prefixes(tensors: Mapping[str, TensorEntry]) -> Iterator[Finding]:
    if strange := [key for key in tensors if not _is_ours(key)]:
        message = f"{_list(strange)}: keys begin with '{PREFIX}' once, or the adapter has no effect"
        fix = "save the adapter with PeftModel.save_pretrained"
        yield Finding("TEN001", message, where=strange[0], fix=fix)


def _options(config: AdapterConfig) -> Iterator[Finding]:
    for name, value in config.options.items():
        if name in kinds.claimed(config.peft_type):
            continue
        rule, why, fix = fields.REFUSED.get(name, _UNKNOWN)
        message = f"adapter_config.json: {name} is {json.dumps(value)[:80]}: it {why}"
        yield Finding(rule, message, where=name, fix=fix)


def _dora(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Iterator[Finding]:
    magnitudes = [key for key in tensors if _MAGNITUDE in key]
    says = config.options.get("use_dora") is True
    if says != bool(magnitudes):
        what = "no tensor holds a magnitude" if says else f"{_list(magnitudes)} hold magnitudes"
        message = f"adapter_config.json: use_dora is {str(says).lower()}, but {what}"
        yield Finding("CFG007", message, where="use_dora", fix="save the adapter again with PEFT")


def _leftover(left: Iterable[str]) -> Iterator[Finding]:
    for sort, keys in _by_sort(left).items():
        message = f"{_list(keys)}: tensors of a kind that rankloom does not read ({sort})"
        fix = "merge the adapter with PEFT, or save it without these tensors"
        yield Finding("TEN009", message, where=keys[0], fix=fix)


def _bytes(entries: Iterable[TensorEntry]) -> Iterator[Finding]:
    """Refuse bytes that no kind knows: they can be any file, an archive that opens too."""
    if names := [entry.name for entry in entries if entry.dtype == "U8"]:
        message = f"{_list(names)}: tensors of plain bytes, which can hold any file"
        yield Finding("FMT010", message, where=names[0], fix="save the adapter without them")


def _by_sort(keys: Iterable[str]) -> dict[str, list[str]]:
    """Group keys by what PEFT calls their last part, so that one finding speaks of all."""
    sorts: dict[str, list[str]] = {}
    for key in keys:
        parts = key.split(".")
        named = [part for part in parts if part.startswith(("lora_", "trainable_", "base_layer"))]
        sorts.setdefault(named[-1] if named else parts[-1], []).append(key)
    return sorts


def _list(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
