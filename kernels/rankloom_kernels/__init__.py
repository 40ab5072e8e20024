"""Tensor mathematics of rankloom; it knows torch and nothing of adapters, files or registries."""

from rankloom_kernels.backends import Backend, BackendError
from rankloom_kernels.dora import dora_, dora_reference
from rankloom_kernels.elect import Election, Keep, elect_merge_, elect_reference
from rankloom_kernels.int4 import Int4
from rankloom_kernels.int4_formats import read_int4, stored_int4
from rankloom_kernels.lowrank import merge_reference
from rankloom_kernels.merge import Numerics, merge_, merge_many_
from rankloom_kernels.quantised import Fp8, Int8, Nf4, Quantised, merge_quantised_
from rankloom_kernels.terms import Folded, Term, fold
from rankloom_kernels.thresholds import thresholds
from rankloom_kernels.workspace import Workspace

__all__ = [
    "Backend",
    "BackendError",
    "Election",
    "Folded",
    "Fp8",
    "Int4",
    "Int8",
    "Keep",
    "Nf4",
    "Numerics",
    "Quantised",
    "Term",
    "Workspace",
    "dora_",
    "dora_reference",
    "elect_merge_",
    "elect_reference",
    "fold",
    "merge_",
    "merge_many_",
    "merge_quantised_",
    "merge_reference",
    "read_int4",
    "stored_int4",
    "thresholds",
]
