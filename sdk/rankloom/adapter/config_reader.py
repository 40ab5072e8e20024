"""Reads ``adapter_config.json`` and reports everything that is wrong with it at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypedDict, cast

from rankloom.adapter import config_checks as checks
from rankloom.adapter import fields, kind_config, kinds
from rankloom.adapter.config import FILE, AdapterConfig
from rankloom.errors import AdapterError, NotFoundError, UnsupportedAdapterError
from rankloom.finding import Finding, Severity
from rankloom.tensorfile import strict_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from rankloom.adapter.kinds.kind import Kind

MAX_BYTES = 1_000_000
_ALPHA_NOT_FINITE = re.compile(r'"lora_alpha"\s{0,9}:\s{0,9}-?(?:NaN|Infinity)')


class Summary(TypedDict):
    """What an error says in words."""

    message: str
    hint: str


UNSUPPORTED = frozenset(["CFG009", "CFG010", "CFG011", "CFG012", "TEN009"])
"""Rules that a sound adapter can break because rankloom does not know its kind (yet)."""


def read(folder: Path) -> AdapterConfig:
    """Read the config of an adapter's folder.

    Raises:
        NotFoundError: the folder has none.
        AdapterError: it is broken; ``findings`` holds everything that is wrong.
        UnsupportedAdapterError: it is sound, but asks for something that rankloom cannot do.
    """
    path = folder / FILE
    if not path.is_file():
        message = f"{folder} has no {FILE}"
        raise NotFoundError(message, hint="give the folder that PEFT's save_pretrained wrote")
    config, findings = inspect(path)
    raise_for(findings, path)
    return cast(AdapterConfig, config)


def raise_for(findings: Iterable[Finding], subject: object) -> None:
    """Raise one error for all findings of severity error, if there is one.

    Args:
        findings: everything that was found.
        subject: what it was found in, for the message.

    Raises:
        AdapterError: the adapter is broken.
        UnsupportedAdapterError: all that is wrong is that rankloom cannot do it.
    """
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not errors:
        return
    broken = [finding for finding in errors if finding.rule not in UNSUPPORTED]
    kind = AdapterError if broken else UnsupportedAdapterError
    raise kind(**summary(broken or errors, len(errors), subject), findings=findings)


def summary(leading: Sequence[Finding], count: int, subject: object) -> Summary:
    """Return message and hint of an error that stands for ``count`` findings."""
    first = leading[0]
    more = f" (and {count - 1} more)" if count > 1 else ""
    return {"message": f"{subject}: {first.rule} {first.message}{more}", "hint": first.fix}


def inspect(path: Path) -> tuple[AdapterConfig | None, list[Finding]]:
    """Read a config and return it with all findings; ``None`` if any of them is an error."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return None, [_broken(f"it is larger than {MAX_BYTES} bytes")]
        return parse(path.read_bytes())
    except OSError as error:
        return None, [_broken(f"it cannot be read: {error.strerror}")]


def parse(data: bytes) -> tuple[AdapterConfig | None, list[Finding]]:
    """Check the bytes of a config; see :func:`inspect`."""
    try:
        value = strict_json.loads(data.decode("utf-8"))
    except strict_json.DuplicateKeyError as error:
        return None, [Finding("CFG002", f"{FILE}: {error}", where=FILE, fix="remove one of them")]
    except strict_json.NotFiniteError as error:
        return None, [_not_finite(data.decode("utf-8"), error)]
    except ValueError as error:
        return None, [_broken(f"it is no JSON in UTF-8 without a byte order mark: {error}")]
    if not isinstance(value, dict):
        return None, [_broken("it is not a JSON object")]
    return _read(value)


def _not_finite(text: str, error: ValueError) -> Finding:
    if not _ALPHA_NOT_FINITE.search(text):
        return _broken(f"it is no JSON: {error}")
    fix = "write the alpha of the training"
    return Finding("CFG005", f"{FILE}: lora_alpha: {error}", where="lora_alpha", fix=fix)


def _broken(what: str) -> Finding:
    return Finding("CFG001", f"{FILE}: {what}", where=FILE, fix="save the adapter again with PEFT")


def _read(value: dict[str, Any]) -> tuple[AdapterConfig | None, list[Finding]]:
    findings = [*kind_config.peft_type(value), *checks.code(value), *checks.base_name(value)]
    get = _Getter(value, findings)
    config = None
    if value.get("peft_type") == "LORA":
        findings += [*checks.init(value), *checks.unknown(value)]
        config = _lora(value, get)
    elif not kind_config.peft_type(value):  # else the fields are those of a kind we cannot read
        kind = kinds.KINDS[value["peft_type"]]
        findings += [
            *checks.unknown(value, kind_config.known(kind)),
            *kind_config.fixed(value, kind),
        ]
        config = _other(value, get, kind)
    broken = any(finding.severity is Severity.ERROR for finding in findings)
    return None if broken else config, findings


class _Getter:
    """Parses fields one by one and collects what is wrong with them."""

    def __init__(self, value: dict[str, Any], findings: list[Finding]) -> None:
        self._value = value
        self._findings = findings

    def __call__(self, name: str, parse: Callable[[str, Any], Any], default: Any = None) -> Any:  # noqa: ANN401
        try:
            return parse(name, self._value.get(name, default))
        except checks.FieldError as error:
            self._findings.append(error.finding)
            return None


def _lora(value: dict[str, Any], get: _Getter) -> AdapterConfig:
    return AdapterConfig(
        r=get("r", checks.rank, 8),
        lora_alpha=get("lora_alpha", checks.alpha, 8),
        use_rslora=get("use_rslora", checks.flag, default=False),
        rank_pattern=get("rank_pattern", checks.rank_pattern),
        alpha_pattern=get("alpha_pattern", checks.alpha_pattern),
        options=_options(value, fields.OPTIONS),
        raw=value,
        **_common(get),
    )


def _other(value: dict[str, Any], get: _Getter, kind: Kind) -> AdapterConfig:
    own = {name: get(name, item.parse, item.default) for name, item in kind.fields.items()}
    return AdapterConfig(
        options=own | _options(value, fields.COMMON_OPTIONS),
        raw=value,
        peft_type=kind.peft_type,
        **_common(get),
    )


def _common(get: _Getter) -> dict[str, Any]:
    return {
        "target_modules": get("target_modules", checks.modules),
        "exclude_modules": get("exclude_modules", checks.modules),
        "layers_to_transform": get("layers_to_transform", checks.indices),
        "layers_pattern": get("layers_pattern", checks.names),
        "base_model_name_or_path": get("base_model_name_or_path", checks.text),
        "task_type": get("task_type", checks.text),
    }


def _options(value: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value[name]
        for name, default in defaults.items()
        if not kind_config.is_default(value, name, default)
    }
