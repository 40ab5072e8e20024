"""LoRA adapters of every sort on one small network, and what a reader's targets make of it."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from peft_cases import edit_config, randomise
from rankloom.adapter.reader import read
from rankloom.change.dense import Dense
from rankloom.change.formula import Sum, Weighted
from rankloom.tensorfile.index import spans

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rankloom.adapter.change import Target

    State = dict[str, torch.Tensor]


class Experts(nn.Module):
    """Three experts as transformers keeps them: (experts, out, in)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(3, 10, 4))
        self.down_proj = nn.Parameter(torch.randn(3, 4, 5))


class TransposedExperts(nn.Module):
    """Three experts kept as (experts, in, out), as in gpt-oss."""

    is_transposed = True

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(3, 4, 10))


class Router(nn.Module):
    """A matrix that belongs to no linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))


class Net(nn.Module):
    """One layer of each sort; it is never run."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(9, 4)
        self.lin = nn.Linear(4, 6)
        self.nobias = nn.Linear(6, 8, bias=False)
        self.gpt = Conv1D(6, 4)
        self.line = nn.Conv1d(6, 5, 3)
        self.conv = nn.Conv2d(3, 4, (3, 2))
        self.point = nn.Conv2d(4, 6, 1)
        self.cube = nn.Conv3d(2, 3, 2)
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
        self.mha = nn.MultiheadAttention(4, 2)
        self.experts = Experts()
        self.turned = TransposedExperts()
        self.router = Router()


@dataclass
class Case:
    """A written adapter.

    Attributes:
        folder: of the adapter.
        base: the network before, in the adapter's dtype.
        model: PEFT's model.
    """

    folder: Path
    base: nn.Module
    model: Any

    @property
    def state(self) -> State:
        """Every tensor of the base, in float64."""
        state = self.base.state_dict()
        return {name: value.double().clone() for name, value in state.items()}

    @property
    def tensors(self) -> State:
        """Every tensor of the adapter's file, in float64, without PEFT's prefix."""
        found = load_file(self.folder / "adapter_model.safetensors")
        prefix = "base_model.model."
        return {key.removeprefix(prefix): value.double() for key, value in found.items()}

    def merged(self) -> State:
        """What PEFT makes of the base, in float64."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            merged = copy.deepcopy(self.model).double().merge_and_unload()
        return {name: value.double() for name, value in merged.state_dict().items()}


def write(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float64,
    net: Callable[[], nn.Module] = Net,
    adapter_name: str = "default",
    **options: Any,  # noqa: ANN401 - of LoraConfig
) -> Case:
    """Write an adapter of rank 2 and alpha 3 with random values."""
    torch.manual_seed(0)
    base = net().to(dtype).eval()
    config = LoraConfig(**{"r": 2, "lora_alpha": 3, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT has opinions about tiny configs
        model = get_peft_model(copy.deepcopy(base), config, adapter_name).eval()
        randomise(model, size=0.3)
        model.save_pretrained(folder)
    if adapter_name != "default":
        folder /= adapter_name
    edit_config(folder, auto_mapping=None)  # it names the tests, which no loader should import
    return Case(folder, base, model)


def applied(case: Case, *, weight: float = 1.0) -> State:
    """Return the base with what the targets of the adapter make of it, in float64."""
    result = case.state
    for name, targets in by_name(case.folder).items():
        before = result[name]
        if not before.dim():  # a counter
            continue
        is_turned = _is_turned(case.base, targets[0])
        module_side = before.transpose(-1, -2) if is_turned else before
        formula = Sum(tuple(Weighted(weight, target.change) for target in targets))
        shape = tuple(formula.shape or module_side.shape)
        total = torch.zeros(shape, dtype=torch.float64)
        total[: len(module_side)] = module_side
        start = total.clone()
        Dense(formula, shape, start.clone).add_(total, start, spans((), shape))
        result[name] = total.transpose(-1, -2) if is_turned else total
    return result


def by_name(folder: Path) -> dict[str, list[Target]]:
    """Return an adapter's targets by the parameter's name."""
    found: dict[str, list[Target]] = {}
    for target in read(folder).targets:
        found.setdefault(target.name, []).append(target)
    return found


def _is_turned(base: nn.Module, target: Target) -> bool:
    module = base.get_submodule(target.module)
    return isinstance(module, TransposedExperts) or (
        isinstance(module, Conv1D) and target.parameter == "weight"
    )


def difference(found: State, exact: State) -> float:
    """Return the largest difference of two states of the same names and shapes."""
    assert found.keys() == exact.keys()
    return max(float((found[name] - exact[name]).abs().max()) for name in exact)


def changed(found: State, before: State) -> set[str]:
    """Return the names of the tensors that are not what they were."""
    return {name for name in before if not torch.equal(found[name], before[name])}


def config_of(folder: Path) -> dict[str, Any]:
    """Return the JSON of an adapter's config."""
    value: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return value
