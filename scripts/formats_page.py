"""Writes ``docs/formats.md`` from the readers themselves; a test compares the two."""

import functools
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

from rankloom.adapter import fields, kinds
from rankloom.change.kinds import FACTORS

PAGE = Path(__file__).parents[1] / "docs/formats.md"

HEAD = """\
# Formats
What an adapter's folder may hold and what rankloom does with it. Every tensor and every field of
the config is either understood or refused by name; nothing is ignored in silence.

A change can always be applied to a base, on disk and live, and composed with others by
W + Σ wᵢ(Wᵢ′ − W). Saving a composition as a PEFT folder needs factors: *export* says whether a
kind has them. Where it has none, apply the composition to a base instead.
"""

REST = """
## Other formats in
`loractl convert FILE -o DIR [--base BASE]` turns a safetensors LoRA of another tool into a PEFT
folder. Factors keep their bytes; a scale becomes alpha / rank, in `rank_pattern` and
`alpha_pattern` where modules differ. What it cannot carry over is refused by name.

| format | keys | alpha |
| --- | --- | --- |
| kohya | `….lora_down.weight`, `….lora_up.weight` (flat: `--base`) | `….alpha`, else the rank |
| diffusers | `….lora.down.weight` and its like, `….lora_A.weight` | `….alpha`, else the rank |
| loralib | `….lora_A`, `….lora_B` | `--alpha` |

## Forms of a base
A folder with `config.json` and safetensors, in one file or sharded with an index; names of
transformers 4 and 5, per-expert or fused; float32, bfloat16, float16 and float64. Quantised bases
(GPTQ, AWQ, compressed-tensors, fp8 with scales, bitsandbytes and their like) are recognised and
refused (`BASE006`) with the remedy: apply to the base before its quantisation.

Whether a module keeps its weight as (out, in), or as (in, out) like transformers' `Conv1D`, is
known of transformers' models. Without their `config.json` the headers tell: a `Conv1D` always has
a bias, as long as its output. A square weight with a bias is read as a linear layer's, unless
another module of the base, or the adapter's `fan_in_fan_out`, speaks of `Conv1D`: then it is
refused.

## The manifest
`rankloom.json` beside the files holds schema, files (path, size, digest), the fingerprint of the
base and the lock. Its canonical JSON (sorted keys, no spaces, UTF-8) is hashed to the version's
digest.
"""


def page() -> str:
    """Return the page's text."""
    return HEAD + _lora() + _types() + _refused() + REST


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"\n## {title}", _row(columns), _row(("---",) * len(columns))]
    return "\n".join([*lines, *map(_row, rows)]) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _lora() -> str:
    modules = [_module(reader) for reader in (*kinds.LORA, *kinds.SHARED)]
    rows = [(_about(module), _export(module)) for module in dict.fromkeys(modules)]
    return _table("`peft_type` LORA", ("what", "export"), rows)


def _types() -> str:
    found = {name: _module(kind.read) for name, kind in sorted(kinds.KINDS.items())}
    rows = [(f"`{name}`", _about(module), _export(module)) for name, module in found.items()]
    return _table("Other types", ("`peft_type`", "what", "export"), rows)


def _refused() -> str:
    options = [(f"`{name}`", why, remedy) for name, (_, why, remedy) in fields.REFUSED.items()]
    types = [(f"`{name}`", kind.why, kind.fix) for name, kind in sorted(kinds.UNMERGEABLE.items())]
    return _table("Refused by name", ("field or type", "because it", "instead"), options + types)


def _module(reader: kinds.Reader) -> ModuleType:
    function = reader.func if isinstance(reader, functools.partial) else reader
    return sys.modules[function.__module__]


def _about(module: ModuleType) -> str:
    """Return the first sentence of a module, which says what it reads."""
    text = " ".join((module.__doc__ or "").split("\n\n")[0].split())
    return text.rstrip(".")


def _export(module: ModuleType) -> str:
    """Say whether every change that a module makes has factors."""
    source = inspect.getsource(module)
    formulas = set(re.findall(r"Computed\(\s*\"(\w+)\"", source))
    named = "Replacement(" in source or "Rows(" in source
    if formulas:
        return "yes" if formulas <= FACTORS.keys() else "no"
    if "Computed(" in source:
        return "no"
    return "alone" if named else "yes"


if __name__ == "__main__":
    PAGE.write_text(page())
