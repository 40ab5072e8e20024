"""LoRA (arXiv 2106.09685) and rsLoRA (arXiv 2312.03732) on linear layers.

Keys ``<module>.lora_A.weight`` (r, in) and ``<module>.lora_B.weight`` (out, r); ΔW = s·B·A. The
same for transformers' ``Conv1D``, whose factors lie in the file as for a linear layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import LowRank, Target
from rankloom.adapter.kinds.reading import Reading
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.tensorfile.header import TensorEntry

OPTIONS: frozenset[str] = frozenset()
"""Plain LoRA needs no option of ``fields.OPTIONS``."""

A, B = ".lora_A.weight", ".lora_B.weight"
_DTYPES = frozenset(["F32", "F16", "BF16"])


def read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    """Return a target for every module that has both factors with fitting shapes."""
    scales = config.scales()
    kind = "rslora" if config.use_rslora else "lora"
    targets, taken, findings = [], set[str](), list[Finding]()
    for module in _modules(tensors):
        a, b = tensors.get(module + A), tensors.get(module + B)
        taken |= {module + A, module + B}
        wrong = list(_check(module, a, b, scales.rank(module)))
        findings += wrong
        if a is not None and b is not None and not wrong:
            targets.append(Target(module, kind, LowRank(a, b, scales.scale(module))))
    return Reading(tuple(targets), frozenset(taken & tensors.keys()), tuple(findings))


def _modules(tensors: Mapping[str, TensorEntry]) -> list[str]:
    return sorted({key[: -len(A)] for key in tensors if key.endswith((A, B))})


def _check(
    module: str, a: TensorEntry | None, b: TensorEntry | None, rank: int
) -> Iterator[Finding]:
    for entry in (a, b):
        if entry is not None and entry.dtype not in _DTYPES:
            yield _dtype(entry)
    if a is None or b is None:
        has, lacks = ("B", "A") if a is None else ("A", "B")
        message = f"{module} has lora_{has} without lora_{lacks}"
        yield Finding("TEN002", message, where=module, fix="save the adapter again, it lost a part")
    else:
        yield from _check_shapes(module, a, b, rank)


def _dtype(entry: TensorEntry) -> Finding:
    rule = "FMT010" if entry.dtype == "U8" else "TEN007"
    message = f"{entry.name} has dtype {entry.dtype}; factors are F32, F16 or BF16"
    return Finding(rule, message, where=entry.name, fix="save the adapter in float32 or 16 bits")


def _check_shapes(module: str, a: TensorEntry, b: TensorEntry, rank: int) -> Iterator[Finding]:
    shapes = f"lora_A {list(a.shape)}, lora_B {list(b.shape)}, config rank {rank}"
    if len(a.shape) != 2 or len(b.shape) != 2:
        message = f"{module} has factors of a layer that is not linear: {shapes}"
        yield Finding("TEN009", message, where=module, fix="merge it with PEFT instead")
    elif a.shape[0] == rank == b.shape[1]:
        return
    elif _is_transposed(a.shape, b.shape, rank):
        message = f"{module} has a transposed factor: {shapes}"
        fix = "lora_A is (rank, in), lora_B is (out, rank); transpose it back"
        yield Finding("TEN003", message, where=module, fix=fix)
    else:
        message = f"{module} has ranks that differ: {shapes}"
        fix = "correct r or rank_pattern in adapter_config.json, or save the tensors again"
        yield Finding("TEN004", message, where=module, fix=fix)


def _is_transposed(a: tuple[int, ...], b: tuple[int, ...], rank: int) -> bool:
    return rank in a and rank in b
