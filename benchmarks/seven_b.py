"""Factors with the shapes of a 7B model's adapter, and how work on them is timed."""

import time
from collections.abc import Callable

import torch

from rankloom.compose.factors.value import Factors
from report import Timing

RANK, LAYERS = 16, 32
MODULES = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (4096, 4096),
    "self_attn.v_proj": (4096, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (11008, 4096),
    "mlp.up_proj": (11008, 4096),
    "mlp.down_proj": (4096, 11008),
}
SHAPES = tuple(MODULES.values())


def factors(out: int, into: int, seed: int) -> Factors:
    """Random float32 factors of rank 16, of the size that training gives them."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + out * 31 + into)
    b = torch.randn(out, RANK, generator=generator) * 0.005
    return Factors(b, torch.randn(RANK, into, generator=generator) * 0.02)


def timed(work: Callable[[], object], rounds: int) -> dict[str, Timing]:
    """Return seconds on the wall, and of the processor, which other programs lengthen less."""
    wall, busy = [], []
    for _ in range(rounds):
        began, worked = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - began)
        busy.append(time.process_time() - worked)
    return {"wall": Timing.of(wall), "processor": Timing.of(busy)}
