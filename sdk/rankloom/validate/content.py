"""Rules of the adapter alone: config against tensors, and the values."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from rankloom import digest
from rankloom.adapter.change import ExpertLowRank, LowRank
from rankloom.adapter.config import FILE as CONFIG
from rankloom.adapter.fields import FOLDED_INITS, LIBRARIES
from rankloom.adapter.folder import TENSORS
from rankloom.adapter.kinds import NOT_LISTED
from rankloom.adapter.patterns import TargetRule
from rankloom.validate.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.reader import Adapter
    from rankloom.finding import Finding

_LAYER = re.compile(r"(.*?\.?)(\d+)(\..+)")
_LAYERS_OF_PEFT = re.compile(r".*?\.[^.]*\.(\d+)\.")
_SHOWN = 3


def named(names: Sequence[str]) -> str:
    """Return the first few of many names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def base_named(adapter: Adapter) -> Iterator[Finding]:
    """BASE001: neither config nor record says what the base is."""
    if adapter.base is None and adapter.config.base_model_name_or_path is None:
        message = "base_model_name_or_path is empty and no record names a base"
        yield RULES["BASE001"].finding(message, where="base_model_name_or_path")


def stricter(adapter: Adapter) -> Iterator[Finding]:
    """Find what the readers let pass, since rankloom applies it exactly, and others do not."""
    yield from imported(adapter)
    yield from unconverted(adapter)
    yield from wide(adapter)


def unconverted(adapter: Adapter) -> Iterator[Finding]:
    """CFG010: the base that the adapter belongs to is the one that is on disk."""
    init = str(adapter.config.raw.get("init_lora_weights", True)).lower()
    if adapter.config.peft_type == "LORA" and init in FOLDED_INITS:
        message = f"init_lora_weights is {init!r}: others add B·A to a base that lacks its start"
        yield RULES["CFG010"].finding(message, where="init_lora_weights")


def wide(adapter: Adapter) -> Iterator[Finding]:
    """TEN007: no factor is in float64, which engines round without a word."""
    entries = adapter.header.tensors.values()
    if names := [entry.name for entry in entries if entry.dtype == "F64"]:
        yield RULES["TEN007"].finding(f"{named(names)} are float64", where=names[0])


def recorded(adapter: Adapter) -> Iterator[Finding]:
    """CFG008: beside the recorded weights lies the recorded config."""
    if adapter.record is None:
        return
    known = {entry.path: entry.digest for entry in adapter.record.files}
    if known.get(CONFIG) in {None, digest.of_file(adapter.path / CONFIG)}:
        return
    if known.get(TENSORS) == digest.of_file(adapter.path / TENSORS):
        message = f"{CONFIG} is not the one that the record has for these weights"
        yield RULES["CFG008"].finding(message, where=CONFIG)


def imported(adapter: Adapter) -> Iterator[Finding]:
    """SEC002: other loaders would import no unknown library for the model's class."""
    mapping = adapter.config.raw.get("auto_mapping") or {}
    root = str(mapping.get("parent_library", "")).split(".")[0]
    # A class of the training script itself is no library that could be imported.
    if root not in {"", "__main__", *LIBRARIES}:
        message = f"auto_mapping names the library {root[:80]!r}, which loaders would import"
        yield RULES["SEC002"].finding(message, where="auto_mapping")


def target_modules(adapter: Adapter) -> Iterator[Finding]:
    """CFG006: the config names the modules that have tensors, and no others."""
    config = adapter.config
    rule = config.target_rule()
    if rule is None:
        return
    modules = {t.module: None for t in adapter.targets if t.kind not in NOT_LISTED}
    excluded = TargetRule.of(config.exclude_modules or ())
    strange = [m for m in modules if excluded.matches(m) or not _named(rule, config, m)]
    if strange and not _ties(config):
        message = f"target_modules does not name modules that have tensors: {named(strange)}"
        yield RULES["CFG006"].finding(message, where="target_modules")
    saved = dict.fromkeys(config.options.get("modules_to_save") or ())
    others = {target.module: None for target in adapter.targets} | saved
    if not config.exclude_modules and (unused := rule.unused(others)):
        message = f"target_modules names modules without tensors: {named(unused)}"
        yield RULES["CFG006"].finding(message, where="target_modules")


def _ties(config: AdapterConfig) -> bool:
    """Tell whether PEFT adapted, besides what was asked for, what is tied to it."""
    always = config.peft_type == "TRAINABLE_TOKENS"
    return always or config.options.get("ensure_weight_tying") is True


def _named(rule: TargetRule, config: AdapterConfig, module: str) -> bool:
    if not rule.matches(module):
        return False
    if config.layers_to_transform is None or module in rule.names:
        return True
    index = _layer_index(module, config.layers_pattern)
    return index is None or index in config.layers_to_transform


def _layer_index(module: str, lists: tuple[str, ...]) -> int | None:
    """Return the number by which PEFT's ``layers_to_transform`` filters a module."""
    if not lists:
        matched = _LAYERS_OF_PEFT.match(module)
        return int(matched[1]) if matched else None
    parts = module.split(".")
    pairs = itertools.pairwise(parts)
    return next((int(n) for name, n in pairs if name in lists and n.isdecimal()), None)


def missing_layers(adapter: Adapter) -> Iterator[Finding]:
    """TEN006: between the first and the last layer every module is there as often."""
    groups: dict[tuple[str, str], set[int]] = {}
    for target in (target for target in adapter.targets if target.kind not in NOT_LISTED):
        if matched := _LAYER.fullmatch(target.module):
            groups.setdefault((matched[1], matched[3]), set()).add(int(matched[2]))
    layers: dict[str, set[int]] = {}
    for (stack, _), found in groups.items():
        layers.setdefault(stack, set()).update(found)
    missing = [
        f"{stack}{index}{module}"
        for (stack, module), found in sorted(groups.items())
        for index in sorted(_expected(layers[stack]) - found)
    ]
    if missing:
        message = f"modules that other layers have are missing: {named(missing)}"
        yield RULES["TEN006"].finding(message, where=missing[0])


def _expected(layers: set[int]) -> set[int]:
    """Return all layers from 0 to the last; of a few layers far out, only those."""
    full = set(range(max(layers) + 1))
    return full if 2 * len(layers) > len(full) else layers


def one_dtype(adapter: Adapter) -> Iterator[Finding]:
    """TEN008: all factors have the same dtype."""
    changes = [target.change for target in adapter.targets]
    pairs = [(c.a, c.b) for c in changes if isinstance(c, LowRank | ExpertLowRank)]
    dtypes = sorted({entry.dtype for pair in pairs for entry in pair})
    if len(dtypes) > 1:
        message = f"factors have the dtypes {', '.join(dtypes)}"
        yield RULES["TEN008"].finding(message)


def finite(adapter: Adapter) -> Iterator[Finding]:
    """NUM001: no value is NaN or infinite."""
    from rankloom.tensorfile.values import is_finite  # numpy, which headers do not need

    entries = adapter.header.tensors.values()
    if bad := [entry.name for entry in entries if not is_finite(entry)]:
        message = f"NaN or infinite values in {named(bad)}"
        yield RULES["NUM001"].finding(message, where=bad[0])


def not_zero(adapter: Adapter) -> Iterator[Finding]:
    """NUM003: not every B is zero, in an adapter that is nothing but factors."""
    from rankloom.tensorfile.values import is_zero

    changes = [target.change for target in adapter.targets]
    factors = [change.b for change in changes if isinstance(change, LowRank | ExpertLowRank)]
    if factors and len(factors) == len(changes) and all(map(is_zero, factors)):
        yield RULES["NUM003"].finding("every lora_B is zero: the adapter has no effect")
