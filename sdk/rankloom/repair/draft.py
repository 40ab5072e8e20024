"""An adapter as it shall be written: its config, and where each tensor's bytes come from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rankloom.adapter.config import FILE as CONFIG
from rankloom.adapter.folder import TENSORS
from rankloom.files import sync, write_atomic
from rankloom.tensorfile import strict_json
from rankloom.tensorfile.header import read_header
from rankloom.tensorfile.layout import lay_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rankloom.tensorfile.header import TensorEntry


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of the new file.

    Attributes:
        source: the tensor that it comes from.
        dtype: its safetensors code.
        shape: its sizes.
        load: gives its bytes.
    """

    source: TensorEntry
    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], bytes]

    @classmethod
    def of(cls, entry: TensorEntry) -> Part:
        """Return a tensor as it is."""

        def load() -> bytes:
            with entry.path.open("rb") as stream:
                stream.seek(entry.start)
                return stream.read(entry.nbytes)

        return cls(entry, entry.dtype, entry.shape, load)


@dataclass(frozen=True, slots=True)
class Draft:
    """A folder to be written.

    Attributes:
        config: the object of ``adapter_config.json``.
        parts: tensors by key.
        done: what was repaired, each with its rule.
    """

    config: Mapping[str, Any]
    parts: Mapping[str, Part]
    done: tuple[tuple[str, str], ...] = ()

    def repaired(
        self,
        rule: str,
        what: str,
        *,
        config: Mapping[str, Any] | None = None,
        parts: Mapping[str, Part] | None = None,
    ) -> Draft:
        """Return the draft with one more repair; ``None``: that half stays as it is."""
        return replace(
            self,
            config=self.config if config is None else config,
            parts=self.parts if parts is None else parts,
            done=(*self.done, (rule, what)),
        )


def read(folder: Path) -> Draft:
    """Return the draft that changes nothing.

    Raises:
        NotFoundError: there is no tensor file.
        AdapterError: the tensor file is broken.
        ValueError: the config is no JSON object.
    """
    header = read_header(folder / TENSORS)
    config = strict_json.loads((folder / CONFIG).read_text("utf-8"))
    if not isinstance(config, dict):
        message = "it is not a JSON object"
        raise ValueError(message)
    draft = Draft(config, {key: Part.of(entry) for key, entry in header.tensors.items()})
    for finding in header.findings:  # what is odd about a header goes with writing it again
        draft = draft.repaired(finding.rule, "the tensor file is written again")
    return draft


def write(draft: Draft, folder: Path) -> None:
    """Write config and tensors into a folder, in place of those that are there."""
    shapes = [(key, part.dtype, part.shape) for key, part in draft.parts.items()]
    file = folder / TENSORS
    filling = file.with_name(f".{TENSORS}.part")
    prefix, header = lay_out(file, shapes, {"format": "pt"})
    with filling.open("wb") as stream:
        stream.write(prefix)
        for key in header.tensors:
            stream.write(draft.parts[key].load())
        sync(stream)
    filling.replace(file)
    text = json.dumps(draft.config, indent=2, ensure_ascii=False) + "\n"
    write_atomic(folder / CONFIG, text.encode("utf-8", "surrogatepass"))
