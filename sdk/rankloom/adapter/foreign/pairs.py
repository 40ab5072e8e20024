"""Sorts the keys of another tool's file into the two factors, and the alpha, of each module.

==========  =====================================================================
kohya       ``<module>.lora_down.weight``, ``.lora_up.weight``, ``.alpha``
diffusers   ``<module>.lora.down.weight`` and its like, ``<module>.lora_A.weight``
loralib     ``<module>.lora_A``, ``<module>.lora_B``
==========  =====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.adapter.kinds.factors import DTYPES
from rankloom.errors import AdapterError, UnsupportedAdapterError
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.tensorfile.header import TensorEntry

ALPHA = ".alpha"
PREFIX = "base_model.model."
FORMATS: dict[str, tuple[tuple[str, str], ...]] = {
    "kohya": ((".lora_down.weight", ".lora_up.weight"),),
    "diffusers": (
        (".lora.down.weight", ".lora.up.weight"),
        (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
        ("_lora.down.weight", "_lora.up.weight"),
        (".lora_A.weight", ".lora_B.weight"),
    ),
    "loralib": ((".lora_A", ".lora_B"),),
}
"""How the keys of A (rank, in, …) and B (out, rank, …) end in each format."""


@dataclass(frozen=True, slots=True)
class Factors:
    """One module's factors under the name that the file gives the module."""

    module: str
    a: TensorEntry
    b: TensorEntry
    alpha: TensorEntry | None

    @property
    def rank(self) -> int:
        """Rows of A."""
        return self.a.shape[0]


def detect(tensors: Mapping[str, TensorEntry]) -> str:
    """Return the one format that a file's keys have.

    Raises:
        UnsupportedAdapterError: they have none, or those of several.
    """
    found = [
        name
        for name, ends in FORMATS.items()
        if any(key.endswith(end) for key in tensors for pair in ends for end in pair)
    ]
    if len(found) != 1:
        what = f"has keys of {' and '.join(found) or 'no known LoRA format'}"
        raise refusal(next(iter(tensors), "the file"), what, "say which with --format")
    return found[0]


def read(tensors: Mapping[str, TensorEntry], kind: str) -> list[Factors]:
    """Return the factors of every module, sorted by module.

    Raises:
        UnsupportedAdapterError: a key is none of the format.
        AdapterError: a factor lacks the other one, or their shapes do not fit.
    """
    if ours := next((key for key in tensors if key.startswith(PREFIX)), None):
        raise refusal(ours, "is a PEFT tensor already", "use the folder as it is")
    if kind == "loralib" and (held := next((k for k in tensors if k.endswith(ALPHA)), None)):
        raise refusal(held, "is an alpha, which loralib files do not hold", "check --format")
    left = dict(tensors)
    result: list[Factors] = []
    for ends in FORMATS[kind]:
        for module in sorted({key[: -len(e)] for key in left for e in ends if key.endswith(e)}):
            a, b = (left.pop(module + end, None) for end in ends)
            if a is None or b is None:
                raise broken(module, "has one factor without the other", "TEN002")
            factors = Factors(module, a, b, left.pop(module + ALPHA, None))
            _check(factors)
            result.append(factors)
    if left:
        what = f"is no {kind} LoRA tensor that a PEFT LoRA can hold ({len(left)} such)"
        raise refusal(min(left), what, "merge it with the tool that made it")
    return sorted(result, key=lambda factors: factors.module)


def _check(found: Factors) -> None:
    a, b = found.a.shape, found.b.shape
    shapes = f"{list(a)} and {list(b)}"
    if not {found.a.dtype, found.b.dtype} <= DTYPES:
        raise broken(found.module, f"has dtypes {found.a.dtype}, {found.b.dtype}", "TEN007")
    if len(a) not in {2, 3, 4, 5} or len(a) != len(b) or a[0] != b[1] or 0 in a + b:
        raise broken(found.module, f"has factors of shapes {shapes}, which do not fit", "TEN004")
    if set(b[2:]) - {1}:
        raise refusal(found.module, f"has a kernel in its second factor: {shapes}", "merge it")


def refusal(name: str, what: str, hint: str) -> UnsupportedAdapterError:
    """Return the error that something sound cannot be converted exactly."""
    message = f"TEN009 {name} {what}"
    finding = Finding("TEN009", f"{name} {what}", where=name, fix=hint)
    return UnsupportedAdapterError(message, hint=hint, findings=[finding])


def broken(name: str, what: str, rule: str) -> AdapterError:
    """Return the error that a module's tensors are broken."""
    hint = "save the adapter again with the tool that made it"
    finding = Finding(rule, f"{name} {what}", where=name, fix=hint)
    return AdapterError(f"{rule} {name} {what}", hint=hint, findings=[finding])
