"""Config checks that depend on the ``peft_type``: is it one we read, and which fields has it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rankloom.adapter import fields, kinds
from rankloom.adapter.config import FILE
from rankloom.finding import Finding

if TYPE_CHECKING:
    from rankloom.adapter.kinds.kind import Kind

_SHORT = 80


def peft_type(value: dict[str, Any]) -> list[Finding]:
    """Accept the types that rankloom reads; PEFT's others are refused, anything else is wrong."""
    found = value.get("peft_type")
    if found == "LORA" or (isinstance(found, str) and found in kinds.KINDS):
        return []
    if not isinstance(found, str) or found not in fields.PEFT_TYPES:
        message = f"{FILE}: peft_type is {found!r:.{_SHORT}}, no type of PEFT"
        fix = "write the peft_type that the adapter was trained with, e.g. 'LORA'"
        return [Finding("CFG003", message, where="peft_type", fix=fix)]
    reason = kinds.UNMERGEABLE.get(found)
    why = reason.why if reason else "a kind that rankloom does not read"
    fix = reason.fix if reason else "convert it to LoRA with PEFT, or merge it with PEFT"
    message = f"{FILE}: peft_type is {found}: {why}"
    return [Finding("CFG012", message, where="peft_type", fix=fix)]


def known(kind: Kind) -> frozenset[str]:
    """Return the names of all fields that a config of this kind may have."""
    common = fields.COMMON_READ | fields.COMMON_IGNORED.keys() | fields.COMMON_OPTIONS.keys()
    return kind.known | common


def fixed(value: dict[str, Any], kind: Kind) -> list[Finding]:
    """Refuse by name the fields whose other values rankloom cannot apply."""
    return [
        Finding(
            "CFG012",
            f"{FILE}: {name} is {json.dumps(value[name]):.{_SHORT}}, which rankloom cannot apply",
            where=name,
            fix="merge the adapter with PEFT, or train it without this option",
        )
        for name, default in kind.fixed.items()
        if not is_default(value, name, default)
    ]


def is_default(value: dict[str, Any], name: str, default: object) -> bool:
    """Tell whether a field is absent, empty, or says what PEFT says by default."""
    found = value.get(name, default)
    # JSON text tells 0 from false and 16 from 16.0, which Python's == does not.
    return fields.is_empty(found) or json.dumps(found) == json.dumps(default)
