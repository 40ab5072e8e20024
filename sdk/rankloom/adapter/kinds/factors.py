"""What the readers of LoRA share: the two factors of each module, complete and of known dtypes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.adapter.change import Target
from rankloom.adapter.kinds.reading import Reading
from rankloom.finding import Finding
from rankloom.tensorfile.header import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

Tensors = Mapping[str, TensorEntry]
"""The tensors of a file by key, without PEFT's prefix."""

LINEAR = (".lora_A.weight", ".lora_B.weight")
"""How the keys of A and B end: for a layer that is a module's ``weight``."""

EMBEDDING = (".lora_embedding_A", ".lora_embedding_B")
"""The same for an embedding."""

SAVED = ".base_layer.weight"
"""How the key of an embedding or a head ends that is targeted and was also saved itself."""

DTYPES = frozenset(["F64", "F32", "F16", "BF16"])


@dataclass(frozen=True, slots=True)
class Pair:
    """Both factors of one module, A (rank, …) and B (out, …)."""

    module: str
    a: TensorEntry
    b: TensorEntry

    @property
    def shapes(self) -> str:
        """Both shapes, for messages."""
        return f"lora_A {list(self.a.shape)}, lora_B {list(self.b.shape)}"


Build = Callable[[Pair], Iterable[Target | Finding]]
"""From the factors of a module to its targets and findings."""


def read_pairs(
    tensors: Tensors, ends: tuple[str, str], build: Build, modules: Iterable[str] | None = None
) -> Reading:
    """Read the factors of each module.

    Args:
        tensors: what no other reader has taken.
        ends: how the keys of A and B end.
        build: called with each module's factors, if both are there and of a known dtype.
        modules: the modules to read, if they have a factor; default: all.
    """
    results: list[Target | Finding] = []
    taken: set[str] = set()
    found = modules_of(tensors, ends)
    for module in found if modules is None else sorted(set(found) & set(modules)):
        a, b = (tensors.get(module + end) for end in ends)
        taken.update(module + end for end in ends)
        wrong = list(check(module, a, b))
        results += wrong
        if not wrong and a is not None and b is not None:
            results += build(Pair(module, a, b))
    return reading(results, taken & tensors.keys())


def reading(results: Iterable[Target | Finding], taken: Iterable[str]) -> Reading:
    """Sort what a reader found into targets and findings."""
    items = tuple(results)
    return Reading(
        tuple(item for item in items if isinstance(item, Target)),
        frozenset(taken),
        tuple(item for item in items if isinstance(item, Finding)),
    )


def modules_of(tensors: Iterable[str], ends: tuple[str, ...]) -> list[str]:
    """Return the modules that have a tensor whose key ends so, sorted."""
    return sorted({key[: -len(end)] for key in tensors for end in ends if key.endswith(end)})


def check(module: str, a: TensorEntry | None, b: TensorEntry | None) -> Iterator[Finding]:
    """Yield what is wrong with a module's factors before their shapes are looked at."""
    for entry in (a, b):
        if entry is not None:
            yield from check_dtype(entry)
    if a is None or b is None:
        has, lacks = ("B", "A") if a is None else ("A", "B")
        message = f"{module} has lora_{has} without lora_{lacks}"
        yield Finding("TEN002", message, where=module, fix="save the adapter again, it lost a part")


def check_dtype(entry: TensorEntry) -> Iterator[Finding]:
    """Yield a finding if a tensor does not hold floats that we compute with."""
    if entry.dtype not in DTYPES:
        rule = "FMT010" if entry.dtype == "U8" else "TEN007"
        message = f"{entry.name} has dtype {entry.dtype}; it must be F64, F32, F16 or BF16"
        yield Finding(rule, message, where=entry.name, fix="save the adapter in float32 or 16 bits")


def check_rank(pair: Pair, rank: int) -> Iterator[Finding]:
    """Yield a finding if A is not (rank, …) or B is not (out, rank, …)."""
    a, b = pair.a.shape, pair.b.shape
    where, shapes = pair.module, f"{pair.shapes}, config rank {rank}"
    if a[:1] == (rank,) == b[1:2]:
        return
    if rank in a and rank in b:
        message = f"{where} has a transposed factor: {shapes}"
        fix = "lora_A is (rank, in), lora_B is (out, rank); transpose it back"
        yield Finding("TEN003", message, where=where, fix=fix)
    else:
        message = f"{where} has ranks that differ: {shapes}"
        fix = "correct r or rank_pattern in adapter_config.json, or save the tensors again"
        yield Finding("TEN004", message, where=where, fix=fix)


def check_linear(pair: Pair, rank: int) -> Iterator[Finding]:
    """Yield what is wrong with factors that must be two matrices of a rank."""
    if len(pair.a.shape) == 2 == len(pair.b.shape):
        yield from check_rank(pair, rank)
    else:
        yield no_layer(pair, "a linear layer")


def no_layer(pair: Pair, what: str) -> Finding:
    """Return the finding that factors have shapes that those of a layer cannot have."""
    message = f"{pair.module} has factors that are not those of {what}: {pair.shapes}"
    return Finding("TEN009", message, where=pair.module, fix="save the adapter again with PEFT")


def refused(module: str, what: str, fix: str, rule: str = "CFG012") -> Finding:
    """Return the finding that a sound adapter does something that no change of a weight can do."""
    return Finding(rule, f"{module} {what}", where=module, fix=fix)
