"""Tensor mathematics of rankloom; it knows torch and nothing of adapters, files or registries."""

from rankloom_kernels.lowrank import merge_, merge_reference
from rankloom_kernels.terms import Folded, Term, fold
from rankloom_kernels.workspace import Workspace

__all__ = ["Folded", "Term", "Workspace", "fold", "merge_", "merge_reference"]
