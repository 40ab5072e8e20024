"""Compiles every kernel for GPUs that are not here, and prints what ptxas made of them as JSON.

    TRITON_INTERPRET=0 python tests/kernels/ahead_of_time.py 90

One line a kernel: its name, what it was specialised for, registers, and bytes of stack and of local
memory; registers that do not fit are spilled there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from rankloom_kernels.elect import Election, Keep
from rankloom_kernels.gpu import (
    count,
    deltas,
    dora,
    elect,
    int4,
    low_rank,
    product,
    quantised,
    strict,
)
from rankloom_kernels.gpu.launch import ELEMENT
from rankloom_kernels.gpu.tables import Dtypes

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


def main() -> None:
    """Compile for each compute capability that is named."""
    for capability in map(int, sys.argv[1:]):
        for name, kernel, types, constants, options in kernels():
            is_like_another = "torch.float16" in name and not name.startswith("low_rank")
            if is_like_another or (capability != 90 and "aligned False" in name):
                continue  # each takes a quarter of a second
            found = compiled(capability, kernel, types, constants, options)
            line = json.dumps({"capability": capability, "name": name, **found})
            sys.stdout.write(f"{line}\n")


def kernels() -> Iterator[tuple[str, Any, dict[str, str], dict[str, Any], dict[str, Any]]]:
    """Yield (name, kernel, types of its arguments, constants, options) of all that are launched."""
    yield from low_rank_kernels()
    yield from strict_kernels()
    yield from dora_kernels()
    yield from separate_kernels()
    yield from quantised_kernels()
    yield from int4_kernels()


def low_rank_kernels() -> Iterator[Any]:
    types = dict.fromkeys(("modules", "terms"), "*i64") | {"scales": "*fp32"}
    types |= {"count": "i32", "lasts": "i32"}
    pairs = [(BF16, BF16), (F16, F16), (BF16, F32), (F16, F32), (F32, F32), (F32, BF16)]
    for weight, factors in pairs:
        for rank in (16, 128):
            for aligned in (True, False):
                name = f"low_rank {weight} {factors} rank {rank} aligned {aligned}"
                dtypes = Dtypes(weight, weight, factors)
                cut = low_rank.cut_for(dtypes, rank, aligned=aligned)
                constants, options = product.specialised(dtypes, cut, aligned=aligned)
                yield name, low_rank.low_rank_kernel, types, constants, options


def strict_kernels() -> Iterator[Any]:
    types = dict.fromkeys(("modules", "terms"), "*i64") | {"count": "i32"}
    for dtype in (BF16, F16, F32, torch.float64):
        constants, options = strict.specialised(dtype, dtype)
        yield f"strict {dtype}", strict.in_order_kernel, types, constants, options


def dora_kernels() -> Iterator[Any]:
    types = {"magnitude": "*fp32", "terms": "*i64", "scales": "*fp32"}
    types |= dict.fromkeys(("past", "height", "width", "weight_stride", "out_stride"), "i32")
    for weight, factors in [(BF16, BF16), (BF16, F32), (F32, F32), (F16, F16)]:
        for rank in (16, 128):
            for aligned in (True, False):
                dtypes = Dtypes(weight, weight, factors)
                cut = dora.cut_for(dtypes, rank, aligned=aligned)
                constants, options = product.specialised(dtypes, cut, aligned=aligned)
                pointers = dict.fromkeys(("weight", "out"), f"*{constants['WEIGHT']}")
                name = f"dora {weight} {factors} rank {rank} aligned {aligned}"
                yield name, dora.dora_kernel, pointers | types, constants, options


def separate_kernels() -> Iterator[Any]:
    for factor in (BF16, F16, F32):
        for rank in (16, 128):
            for aligned in (True, False):
                cut = deltas.cut_for(factor, rank, aligned=aligned)
                constants, options = deltas.specialised(factor, cut, aligned=aligned)
                what = f"{factor} rank {rank} aligned {aligned}"
                yield f"count {what}", count.count_kernel, COUNT, constants | BINS, options
                if rank == 16 or factor == BF16:
                    for name, extra in ELECTIONS.items():
                        every = extra | constants
                        yield f"elect {name} {what}", elect.elect_kernel, ELECT, every, options


SIZES = dict.fromkeys(("height", "width", "weight_stride", "out_stride"), "i32")
COUNT = {"counts": "*i32", "terms": "*i64", "scales": "*fp32", "coefficients": "*fp32"}
COUNT |= dict.fromkeys(("number", "height", "width", "low", "shift"), "i32")
BINS = {"BINS": 1024}
ELECT = {"weight": "*bf16", "out": "*bf16", "terms": "*i64", "scales": "*fp32"}
ELECT |= {"numbers": "*fp32", "streams": "*i64", "count": "i32", "start": "i32"} | SIZES
ELECT |= {"factor": "fp32"}
DTYPES = {"WEIGHT": ELEMENT[BF16], "OUT": ELEMENT[BF16]}
ELECTIONS = {
    "ties": DTYPES | elect.switches(Keep((0.1,)), Election((1.0,), "unweighted")),
    "dare": DTYPES | elect.switches(Keep((0.1,), (1,)), Election((1.0,), "none", "total", "none")),
    "dare ties": DTYPES | elect.switches(Keep((0.1,), (1,)), Election((1.0,), "weighted", "count")),
}


def quantised_kernels() -> Iterator[Any]:
    tables = {"terms": "*i64", "scales": "*fp32", "past": "i32", "height": "i32", "width": "i32"}
    nf4 = {"codes": "*u8", "scale": "*fp32", "table": "*fp32", "limits": "*fp32"} | tables
    groups = {"scale": "*fp32", "amax": "*i32", "inverse": "*fp32"} | tables
    groups |= {"group_rows": "i32", "group_columns": "i32", "largest": "fp32"}
    for factor in (BF16, F32):
        for rank in (16, 128):
            for aligned in (True, False):
                cut = quantised.cut_for(factor, rank, aligned=aligned)
                constants, options = quantised.compiled_for(factor, cut, aligned=aligned)
                what = f"{factor} rank {rank} aligned {aligned}"
                yield f"nf4 {what}", quantised.nf4_kernel, nf4, constants, options
                for kind, is_float in (("*i8", False), ("*u8", True)):
                    types = {"codes": kind} | groups
                    for writes in (True, False):
                        every = {"WRITES": writes, "IS_FLOAT": is_float} | constants
                        name = f"groups {kind} writes {writes} {what}"
                        yield name, quantised.groups_kernel, types, every, options


def int4_kernels() -> Iterator[Any]:
    types = {"words": "*i32", "scale": "*fp16", "zero": "*u8", "new_scale": "*fp16"}
    types |= {"new_zero": "*u8"} | dict.fromkeys(("low", "high", "group"), "*i32")
    types |= {"groups": "i32", "first": "fp32", "last": "fp32", "terms": "*i64", "scales": "*fp32"}
    types |= dict.fromkeys(("past", "height", "width"), "i32")
    gptq, awq, packed = (False, True), (True, True), (False, False)
    whole, first, second = (False, True), (False, False), (True, True)
    for layout, passes, span, factor, rank in (
        (gptq, whole, 128, BF16, 16),
        (awq, whole, 64, F32, 16),
        (packed, whole, 32, F32, 128),
        (gptq, first, 1, BF16, 128),
        (gptq, second, 1, BF16, 128),
    ):
        cut = int4.cut_for(factor, rank, span, aligned=True)
        constants, options = quantised.compiled_for(factor, cut, aligned=True)
        what = zip(("IS_BY_COLUMN", "IS_TURNED", "READS", "WRITES"), layout + passes, strict=True)
        every = dict(what) | {"SPAN": span}
        yield (
            f"int4 {every} {factor} rank {rank}",
            int4.int4_kernel,
            types,
            every | constants,
            options,
        )


def compiled(
    capability: int,
    kernel: Any,  # noqa: ANN401
    types: dict[str, str],
    constants: dict[str, Any],
    options: dict[str, Any],
) -> dict[str, int]:
    """Return registers and bytes of memory that one kernel takes."""
    types = types | dict.fromkeys(constants, "constexpr")
    is_aligned = constants.get("ALIGNED", True)
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, (name, kind) in enumerate(types.items())
        if kind != "constexpr" and (is_aligned or name in {"modules", "terms", "scales"})
    }
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        said = subprocess.run(
            [TOOL, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    found = re.search(r"REG:(\d+) STACK:(\d+) \S+ LOCAL:(\d+)", said.stdout + said.stderr)
    assert found is not None, said
    return dict(zip(("registers", "stack", "local"), map(int, found.groups()), strict=True))


if __name__ == "__main__":
    main()
