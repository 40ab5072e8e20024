"""Reads pickled tensors, with nothing but tensors allowed; only a conversion that asks for it does.

``torch.load(weights_only=True)`` is an unpickler of its own that calls no function but those that
rebuild tensors. What it lets through is checked once more: every value is a dense tensor that is no
larger than the bytes behind it.
"""

from __future__ import annotations

import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import torch

from rankloom.change.dtypes import ALL_CODES
from rankloom.change.read import as_bytes
from rankloom.errors import AdapterError, NotFoundError
from rankloom.files import sync
from rankloom.finding import Finding
from rankloom.tensorfile.layout import lay_out

if TYPE_CHECKING:
    from pathlib import Path

_TRUST = "get the adapter as safetensors from who made it"


def to_safetensors(source: Path, target: Path) -> None:
    """Write the tensors of a pickled file as safetensors, under the same keys.

    Args:
        source: what ``torch.save`` made of a flat dict of tensors, ``.bin``, ``.pt`` or the like.
        target: the file to write.

    Raises:
        NotFoundError: there is no such file.
        AdapterError: it is no pickle of tensors, or wants to call something else (SEC001).
    """
    tensors = _checked(_load(source), source)
    shapes = [(key, ALL_CODES[value.dtype], tuple(value.shape)) for key, value in tensors.items()]
    prefix, header = lay_out(target, shapes, {"format": "pt"})
    with target.open("wb") as stream:
        stream.write(prefix)
        for key in header.tensors:
            stream.write(as_bytes(tensors[key].detach()))
        sync(stream)


def _load(source: Path) -> object:
    try:
        # Only the zip that newer versions write can stay on disk until a tensor is used.
        return torch.load(
            source, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(source)
        )
    except FileNotFoundError as missing:
        message = f"{source} does not exist"
        raise NotFoundError(message, hint="check the path") from missing
    except pickle.UnpicklingError as error:
        raise _refused(source, f"is no pickle of tensors only: {_first_line(error)}") from None
    except Exception as error:  # noqa: BLE001 - a broken pickle may fail in any way
        raise _refused(source, f"cannot be unpickled: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "GLOBAL" in line or "Unsupported" in line]
    return (named or lines or [type(error).__name__])[0][:200]


def _refused(source: Path, what: str) -> AdapterError:
    finding = Finding("SEC001", f"{source.name} {what}", where=source.name, fix=_TRUST)
    return AdapterError(f"SEC001 {source} {what}", hint=_TRUST, findings=[finding])


def _checked(value: object, source: Path) -> dict[str, torch.Tensor]:
    if not isinstance(value, dict):
        raise _refused(source, f"holds a {type(value).__name__}, not a dict of tensors")
    for key, tensor in value.items():
        if why := _why_not(key, tensor):
            raise _refused(source, f"holds {str(key)[:80]!r}, {why}")
    return value


def _why_not(key: object, value: Any) -> str:  # noqa: ANN401 - whatever the pickle holds
    if not isinstance(key, str):
        return "which is no name"
    if not isinstance(value, torch.Tensor):
        return f"which is a {type(value).__name__}, not a tensor"
    if value.layout is not torch.strided or value.is_quantized or value.dtype not in ALL_CODES:
        return f"a tensor of a form that no adapter has ({value.dtype}, {value.layout})"
    # A few bytes can claim to be any number of values by a stride of zero.
    if value.device.type != "cpu" or value.nbytes > value.untyped_storage().nbytes():
        return "a tensor that is larger than its bytes"
    return ""
