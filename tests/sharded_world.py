"""What each of two processes checks of a model whose parameters are spread over both."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode

from lowrank_cases import part
from rankloom.composition import Composition, compose
from rankloom.errors import IncompatibleError

PLACEMENTS = (Shard(0), Shard(1), Replicate())


def build() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 9, bias=False), nn.Linear(9, 7, bias=False)]  # 9 rows and 7: uneven
    return nn.Sequential(*layers).bfloat16()


def run(rank: int, folder: str) -> None:
    """Be one of the processes."""
    warnings.simplefilter("ignore")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    compositions = [compose([part(Path(folder) / name)]) for name in ("one", "two")]
    mesh = init_device_mesh("cpu", (2,))
    expected = []
    for composition in compositions:
        plain = build()
        composition.apply(plain)
        expected.append([parameter.detach() for parameter in plain.parameters()])
    for placement in PLACEMENTS:
        model = build()
        for layer in model:
            whole = layer.weight.detach()
            layer.weight = nn.Parameter(distribute_tensor(whole, mesh, [placement]))
        check(model, compositions, expected)
    fully_shard(model := build(), mesh=mesh)
    x = torch.ones(2, 6, dtype=torch.bfloat16)
    with torch.no_grad():
        model(x)  # gathers, and the root keeps what it gathered
        with compositions[0].apply(model) as handle:
            for composition in reversed(compositions):
                handle.swap(composition)
                plain = build()
                composition.apply(plain)
                assert torch.equal(model(x), plain(x))
        assert torch.equal(model(x), build()(x))
    check_refused(folder, mesh)
    dist.destroy_process_group()


def check(
    model: nn.Sequential,
    compositions: list[Composition],
    expected: list[list[torch.Tensor]],
) -> None:
    addresses = [parameter.to_local().data_ptr() for parameter in model.parameters()]
    with CommDebugMode() as traffic, compositions[0].apply(model) as handle:
        found = [copies(model)]
        handle.swap(compositions[1])
        found.append(copies(model))
    assert traffic.get_total_counts() == 0
    assert addresses == [parameter.to_local().data_ptr() for parameter in model.parameters()]
    for some, wanted in zip(
        [*found, copies(model)], [*expected, build().parameters()], strict=True
    ):
        for one, whole in zip(some, wanted, strict=True):
            assert torch.equal(one.full_tensor(), whole)


def copies(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def check_refused(folder: str, mesh: DeviceMesh) -> None:
    model = build()
    whole = model[0].weight.detach()
    model[0].weight = nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)]))
    with pytest.raises(IncompatibleError, match="depends on values of other shards"):
        compose([part(Path(folder) / "dora")]).apply(model)
    assert torch.equal(model[0].weight.full_tensor(), build()[0].weight)
