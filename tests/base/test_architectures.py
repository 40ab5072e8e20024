"""Every parameter of many architectures lies where its name says, on every layout of the disk.

The oracle is transformers: the model in memory, and what it makes of it on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from base_cases import as_delta, as_value, assembled, stored
from rankloom.base import reader
from rankloom.base.locate import locate
from tiny_models import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rankloom.base.model import Base

    Saved = tuple[torch.nn.Module, Path]

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own, about tiny configs


def deltas(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and value (out, in) of every matrix that an adapter's factors can change."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding | Conv1D):
            value = module.weight.detach()
            yield f"{name}.weight", value.T if isinstance(module, Conv1D) else value


def check(base: Base, model: torch.nn.Module) -> None:
    for name, value in deltas(model):
        pieces = locate(base, as_delta(name, *value.shape))
        if not pieces:
            assert is_tied(model, name), name
            continue
        assert torch.equal(assembled(pieces, value.shape), value), name
    for name, parameter in model.named_parameters():
        if "parametrizations" not in name:
            pieces = locate(base, as_value(name, parameter.shape))
            assert torch.equal(assembled(pieces, parameter.shape), parameter), name


def is_tied(model: torch.nn.Module, name: str) -> bool:
    return name in getattr(model, "all_tied_weights_keys", {})


@pytest.mark.parametrize("original", [True, False])
@pytest.mark.parametrize("kind", MODELS)
def test_every_parameter_is_found(
    kind: str, saved: Callable[[str, bool], Saved], *, original: bool
) -> None:
    model, folder = saved(kind, original)
    check(reader.read(folder), model)


@pytest.mark.parametrize("module", ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"])
def test_projections_of_phi_by_their_names_in_llama(
    module: str, saved: Callable[[str, bool], Saved]
) -> None:
    model, folder = saved("phi3", True)
    layer = model.get_submodule("model.layers.1")
    hidden = torch.randn(1, 5, 16)
    part = "mlp" if module in {"gate_proj", "up_proj"} else "self_attn"
    together = layer.mlp.gate_up_proj if part == "mlp" else layer.self_attn.qkv_proj
    # What the model's own forward cuts out of the output.
    start, stop = {
        "q_proj": (0, 16), "k_proj": (16, 24), "v_proj": (24, 32),
        "gate_proj": (0, 24), "up_proj": (24, 48),
    }[module]  # fmt: skip
    target = as_delta(f"model.layers.1.{part}.{module}.weight", stop - start, 16)
    weight = assembled(locate(reader.read(folder), target), (stop - start, 16))
    wanted = together(hidden)[..., start:stop]
    assert torch.allclose(hidden @ weight.T, wanted, atol=1e-5)  # one product of 16 terms


def test_projections_of_other_models_are_not_guessed(
    saved: Callable[[str, bool], Saved],
) -> None:
    found = reader.read(saved("gpt_neox", True)[1])
    assert not locate(found, as_delta("gpt_neox.layers.0.attention.q_proj.weight", 16, 16))


@pytest.mark.parametrize("kind", MODELS)
def test_names_on_disk_of_one_layout_are_found_in_the_other(
    kind: str, saved: Callable[[str, bool], Saved]
) -> None:
    old, new = (reader.read(saved(kind, original)[1]) for original in (True, False))
    for name, kept in old.tensors.items():
        if "parametrizations" in name:
            continue
        pieces = locate(new, as_value(name, kept.shape))
        values = stored(kept.path, name)
        assert torch.equal(assembled(pieces, kept.shape), values), name
