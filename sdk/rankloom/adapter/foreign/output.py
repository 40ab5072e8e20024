"""What a conversion writes: a config and tensors, of which most are bytes of the source."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rankloom.adapter.foreign.keys import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rankloom.tensorfile.header import TensorEntry

    Chunks = Iterable[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor to be written.

    Attributes:
        dtype: safetensors code.
        shape: its sizes.
        chunks: gives its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Chunks]


@dataclass(frozen=True, slots=True)
class Output:
    """A PEFT folder's content.

    Attributes:
        config: content of ``adapter_config.json``.
        tensors: by key.
        rounded: modules of which a value lost a bit; complete when all tensors were written.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    rounded: set[str] = field(default_factory=set)


def key(module: str, leaf: str) -> str:
    """Return a tensor's key in a PEFT folder."""
    return f"{PREFIX}{module}.{leaf}"


def copy(entry: TensorEntry, shape: tuple[int, ...] | None = None) -> Tensor:
    """Return a tensor with the bytes of the source, perhaps in another shape."""

    def chunks() -> Chunks:
        from rankloom.tensorfile.values import raw_chunks  # numpy, which headers do not need

        return raw_chunks(entry)

    return Tensor(entry.dtype, entry.shape if shape is None else shape, chunks)


def pattern(values: Mapping[str, float], default: float) -> dict[str, float]:
    """Return what differs from a default, by a regular expression for exactly one module."""
    return {f"^{re.escape(module)}": number(v) for module, v in values.items() if v != default}


def number(value: float) -> float:
    """Return a number as JSON shows it best."""
    return int(value) if float(value).is_integer() else value
