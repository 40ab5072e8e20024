"""One small function per thing that can be wrong with a field of ``adapter_config.json``."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from rankloom.adapter import fields
from rankloom.adapter.config import FILE
from rankloom.adapter.patterns import PatternTable, TargetRule, UnsafeRegexError
from rankloom.finding import Finding, Severity

MAX_RANK = 1 << 16
MAX_ALPHA = 1e30
_SHORT = 80
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class FieldError(Exception):
    """A field's value cannot be used; ``finding`` says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def _finding(rule: str, name: str, what: str, fix: str = "") -> Finding:
    return Finding(rule, f"{FILE}: {name} {what}", where=name, fix=fix)


def _spoken(value: object) -> str:
    return repr(value)[:_SHORT]


def code(value: dict[str, Any]) -> list[Finding]:
    """Refuse what makes some loader import or run code (we never do)."""
    fix = "remove the field; an adapter must not bring code"
    found = [
        _finding("SEC002", name, f"is {_spoken(value[name])}: it asks loaders to run code", fix)
        for name in ("auto_map", "trust_remote_code", "megatron_config")
        if not fields.is_empty(value.get(name))
    ]
    if value.get("megatron_core") not in {None, "megatron.core"}:
        what = f"is {_spoken(value['megatron_core'])}, a module that loaders import"
        found.append(_finding("SEC002", "megatron_core", what, "write 'megatron.core'"))
    return found + _auto_mapping(value.get("auto_mapping"))


def _auto_mapping(mapping: Any) -> list[Finding]:  # noqa: ANN401 - a JSON value
    """Warn of a class that other loaders would import; reading and applying never do.

    PEFT writes this for every model without a task type, from wherever its class lives, so it
    cannot stop an apply; ``validate``, and with it every push, makes an error of it.
    """
    if fields.is_empty(mapping):
        return []
    fix = "set auto_mapping to null; rankloom does not need it"
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    if not isinstance(library, str):
        return [_finding("SEC002", "auto_mapping", "names no library", fix)]
    if library.split(".")[0] in fields.LIBRARIES:
        return []
    what = f"names the library {_spoken(library)}, which loaders would import"
    return [replace(_finding("SEC002", "auto_mapping", what, fix), severity=Severity.WARNING)]


def base_name(value: dict[str, Any]) -> list[Finding]:
    """Refuse base names that would make a careless loader fetch something; we never fetch."""
    name = value.get("base_model_name_or_path")
    if not isinstance(name, str):
        return []
    where = "base_model_name_or_path"
    if (
        "://" in name
        or name.startswith(("\\\\", "//", "file:"))
        or ".." in re.split(r"[\\/]", name)
    ):
        what = f"is {_spoken(name)}, neither a repository nor a plain path"
        return [_finding("SEC003", where, what, "write the base's repository id, or null")]
    if name.startswith(("/", "~")) or _DRIVE.match(name):
        message = f"{FILE}: {where} is a path of the machine it was trained on, {_spoken(name)}"
        return [Finding("SEC003", message, Severity.INFO, where, "others cannot find it there")]
    return []


def init(value: dict[str, Any]) -> list[Finding]:
    """Refuse initialisations that changed the base, unless the adapter was converted."""
    found = value.get("init_lora_weights", True)
    text = str(found).lower()
    if isinstance(found, bool | str) and text in fields.SAFE_INITS | fields.FOLDED_INITS:
        return []
    if isinstance(found, str) and text.startswith(fields.MUTATING_INITS):
        what = f"is {found!r}: it changed the base before training, so W + s·B·A is another model"
        fix = "save it with save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        return [_finding("CFG010", "init_lora_weights", what, fix)]
    what = f"is {_spoken(found)}, an initialisation that rankloom does not know"
    return [_finding("CFG011", "init_lora_weights", what, "use a newer rankloom, if it is real")]


def unknown(value: dict[str, Any], known: frozenset[str] = fields.KNOWN_OF_LORA) -> list[Finding]:
    """Refuse by name every field that no table knows and that says something."""
    fix = "use a rankloom that knows the field, or remove it if it has no effect"
    return [
        _finding("CFG011", name[:_SHORT], f"is {_spoken(found)}, a field that is not known", fix)
        for name, found in value.items()
        if name not in known and name not in {"auto_map", "trust_remote_code"}
        if not fields.is_empty(found)
    ]


def rank(name: str, value: Any) -> int:  # noqa: ANN401 - a JSON value
    """Return a rank: a whole number from 1 to ``MAX_RANK``."""
    if type(value) is int and 1 <= value <= MAX_RANK:
        return value
    what = f"is {_spoken(value)}, not a whole number from 1 to {MAX_RANK}"
    raise FieldError(_finding("CFG004", name, what, "write the rank of the tensors"))


def alpha(name: str, value: Any) -> float:  # noqa: ANN401 - a JSON value
    """Return an alpha: a positive number."""
    if type(value) in {int, float} and 0 < value <= MAX_ALPHA:
        return float(value)
    what = f"is {_spoken(value)}, not a positive number"
    raise FieldError(_finding("CFG005", name, what, "write the alpha of the training"))


def flag(name: str, value: Any) -> bool:  # noqa: ANN401 - a JSON value
    """Return a truth value."""
    if isinstance(value, bool):
        return value
    raise FieldError(_finding("CFG001", name, f"is {_spoken(value)}, not true or false"))


def text(name: str, value: Any) -> str | None:  # noqa: ANN401 - a JSON value
    """Return a text or ``None``."""
    if value is None or isinstance(value, str):
        return value or None
    raise FieldError(_finding("CFG001", name, f"is {_spoken(value)}, not a text"))


def rank_pattern(name: str, value: Any) -> dict[str, int]:  # noqa: ANN401 - a JSON value
    """Return ranks by pattern."""
    return {key: rank(f"{name}[{key[:40]!r}]", item) for key, item in pattern(name, value).items()}


def alpha_pattern(name: str, value: Any) -> dict[str, float]:  # noqa: ANN401 - a JSON value
    """Return alphas by pattern."""
    return {key: alpha(f"{name}[{key[:40]!r}]", item) for key, item in pattern(name, value).items()}


def pattern(name: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 - a JSON value
    """Return values by pattern of a module's name; ``None`` is empty."""
    if not isinstance(value, dict | None):
        raise FieldError(_finding("CFG001", name, f"is {_spoken(value)}, not an object"))
    try:
        PatternTable(value or {})
    except UnsafeRegexError as error:
        raise _unsafe(name, error) from None
    return value or {}


def _unsafe(name: str, error: UnsafeRegexError) -> FieldError:
    what = f"holds a regular expression that may never end: {error}"
    return FieldError(_finding("SEC010", name, what, "list the modules' names instead"))


def modules(name: str, value: Any) -> tuple[str, ...] | str | None:  # noqa: ANN401 - a JSON value
    """Return a list of names, a safe regular expression, or ``None``."""
    if not isinstance(value, str):
        return names(name, value) if value is not None else None
    try:
        TargetRule.of(value)
    except UnsafeRegexError as error:
        raise _unsafe(name, error) from None
    return value


def names(name: str, value: Any) -> tuple[str, ...]:  # noqa: ANN401 - a JSON value
    """Return a list of texts; a lone text is a list of one, ``None`` of none."""
    found = [value] if isinstance(value, str) else value or []
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        return tuple(found)
    raise FieldError(_finding("CFG001", name, f"is {_spoken(value)}, not a list of names"))


def indices(name: str, value: Any) -> tuple[int, ...] | None:  # noqa: ANN401 - a JSON value
    """Return a list of layer indices; a lone index is a list of one."""
    found = [value] if type(value) is int else value
    if found is None:
        return None
    if isinstance(found, list) and all(type(item) is int and item >= 0 for item in found):
        return tuple(found)
    raise FieldError(_finding("CFG001", name, f"is {_spoken(value)}, not a list of layers"))
