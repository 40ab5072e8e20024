"""A search whose best weights are known in closed form, on a model of a few small matrices."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from lowrank_cases import Case, deltas
from rankloom import sdk

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankloom.tune.tuned import Tuned

NAMES = ("one", "two")
SHAPES = {
    f"model.layers.{layer}.{module}": (6, 5)
    for layer in range(4)
    for module in ("self_attn.q_proj", "mlp.up_proj")
}
OPTIMUM = {"one": 0.62, "two": 1.1}


def adapters(folder: Path) -> list[Path]:
    """Write two adapters."""
    return [
        Case(SHAPES, rank=2, seed=seed).write(folder / name) for seed, name in enumerate(NAMES, 1)
    ]


def network() -> nn.Module:
    """Return a model with a linear layer for each shape."""
    torch.manual_seed(0)
    root = nn.Module()
    for name, (out, into) in SHAPES.items():
        *path, last = name.split(".")
        where = root
        for word in path:
            if not hasattr(where, word):
                where.add_module(word, nn.Module())
            where = getattr(where, word)
        where.add_module(last, nn.Linear(into, out, bias=False))
    return root


def bits(model: nn.Module) -> dict[str, bytes]:
    """Return every parameter's bytes."""
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def distance(
    model: nn.Module, folders: list[Path], optimum: Callable[[str, str], float]
) -> Callable[[nn.Module], list[float]]:
    """Return a score that is highest, 0, where the model is W + Σ optimum·Δ.

    Each target is an example: minus the squared distance there, in float64.

    Args:
        model: the base.
        folders: of the adapters.
        optimum: weight of an adapter, by its name, on a target.
    """
    goal = {name: model.get_submodule(name).weight.detach().double().clone() for name in SHAPES}
    for folder in folders:
        for name, delta in deltas(folder).items():
            goal[name] = goal[name] + optimum(folder.name, name) * delta

    def evaluate(changed: nn.Module) -> list[float]:
        found = ((name, changed.get_submodule(name).weight.detach().double()) for name in SHAPES)
        return [-float((weight - goal[name]).square().sum()) for name, weight in found]

    return evaluate


def plain(name: str, target: str) -> float:
    """Return one best weight for each adapter."""
    del target
    return OPTIMUM[name]


def outcome(tuned: Tuned) -> list[object]:
    """Return what must be the same in every run: all weights and all scores."""
    return [[one.kind, one.weights, one.score.examples] for one in tuned.trials]


def main(folder: Path, journal: Path, die_at: int) -> None:
    """Search in a process of its own, which kills itself during its evaluation number die_at."""
    model, count = network(), 0
    folders = [folder / name for name in NAMES]
    scored = distance(model, folders, plain)

    def evaluate(changed: nn.Module) -> list[float]:
        nonlocal count
        count += 1
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return scored(changed)

    tuned = sdk.tune(folders, evaluate=evaluate, model=model, trials=14, seed=3, journal=journal)
    print(json.dumps(outcome(tuned)))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
