"""Adapters that PEFT itself wrote, and what PEFT makes of their base in float64.

A case is a tiny random model, a PEFT config for it, and folders: :func:`write` saves base and
adapter (every parameter of the adapter random, so that nothing is hidden by an initial zero),
:func:`merged_by_peft` is the oracle, :func:`apply` is what rankloom makes of the same folders.
"""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import save_file

from lowrank_cases import part, read_checkpoint
from rankloom.composition import compose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from peft import PeftConfig
    from torch import nn

    State = Mapping[str, torch.Tensor]


@dataclass
class Written:
    """A base and an adapter on disk, and the PEFT model that wrote them.

    Attributes:
        base: folder of the base.
        adapter: folder of the adapter.
        model: the PEFT model, in the dtype of the base.
        before: every tensor of the base as it lies on disk.
    """

    base: Path
    adapter: Path
    model: PeftModel
    before: dict[str, torch.Tensor]


def randomise(model: PeftModel, seed: int = 0, size: float = 0.1) -> None:
    """Move every parameter that the adapter trains by noise of the given size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(size * noise.to(parameter.dtype))


def write(
    folder: Path,
    model: nn.Module,
    config: PeftConfig,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    size: float = 0.1,
    max_shard_size: str = "50GB",
    prepare: Callable[[PeftModel], None] | None = None,
) -> Written:
    """Write a model and a random adapter for it.

    Args:
        folder: where ``base/`` and ``adapter/`` will be.
        model: a transformers model, or any module (saved under its state's names, no config).
        config: what to train; changed by PEFT.
        dtype: of the base.
        seed: of the adapter's values.
        size: of the noise on its parameters.
        max_shard_size: of a transformers base.
        prepare: called with the PEFT model after the noise, before saving.
    """
    model = model.to(dtype).eval()
    save_model(model, folder / "base", max_shard_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT has opinions about tiny configs
        peft = get_peft_model(model, config).eval()
        randomise(peft, seed, size)
        if prepare is not None:
            prepare(peft)
        peft.save_pretrained(folder / "adapter")
    if not hasattr(model, "save_pretrained"):  # else it names a module of the tests
        edit_config(folder / "adapter", auto_mapping=None)
    return Written(folder / "base", folder / "adapter", peft, read_checkpoint(folder / "base"))


def save_model(model: nn.Module, folder: Path, max_shard_size: str = "50GB") -> None:
    """Write a checkpoint as transformers does, or as plain tensors under the state's names."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        return
    folder.mkdir(parents=True)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def merged_by_peft(written: Written, folder: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of the merged model in float64, under its name on disk."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = copy.deepcopy(written.model).double().merge_and_unload()
    save_model(merged, folder)
    return read_checkpoint(folder)


def apply(
    written: Written | Path,
    out: Path,
    *adapters: Path,
    weights: Sequence[float] | None = None,
    **options: Any,  # noqa: ANN401 - of apply_to
) -> dict[str, torch.Tensor]:
    """Compose adapters (default: the case's own), apply them to the base, return what was written.

    The warning that no adapter records its base is expected, and left out.
    """
    base = written.base if isinstance(written, Written) else written
    folders = adapters or ((written.adapter,) if isinstance(written, Written) else ())
    composition = compose([part(folder) for folder in folders], weights)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "BASE001")
        composition.apply_to(base, out, **options)
    return read_checkpoint(out)


def check(found: State, exact: State, before: State) -> None:
    """Compare a written checkpoint with float64 values.

    float32 within 2e-6 + 2e-6·max|W|, float64 within 1e-12 of it; 16 bits: the float64 value
    rounded once, but for one element in 10⁴ (at least one), which is its neighbour.
    """
    assert found.keys() == exact.keys()
    for name, wanted in exact.items():
        tensor = found[name]
        assert tensor.shape == wanted.shape, name
        if name in before:
            assert tensor.dtype == before[name].dtype, name
        if not tensor.is_floating_point():
            assert torch.equal(tensor, wanted.to(tensor.dtype)), name
            continue
        error = (tensor.double() - wanted.double()).abs().max() if tensor.numel() else 0
        largest = wanted.abs().max() if tensor.numel() else 0
        if tensor.dtype in {torch.float32, torch.float64}:
            unit = 2e-6 if tensor.dtype == torch.float32 else 1e-12
            assert error <= unit + unit * largest, f"{name}: off by {error}"
        else:
            rounded = wanted.to(tensor.dtype)
            wrong = (tensor != rounded).sum()
            assert wrong <= max(1, tensor.numel() // 10_000), f"{name}: {wrong} elements differ"
            step = torch.finfo(tensor.dtype).eps
            assert (error <= step * largest).all(), f"{name}: off by {error}"


def check_changed(found: State, before: State, names: Sequence[str]) -> None:
    """Demand that exactly the named tensors changed: a case in which nothing does shows nothing."""
    changed = {name for name in before if not torch.equal(found[name], before[name])}
    assert changed == set(names)


def edit_config(adapter: Path, **fields: object) -> None:
    """Replace fields of a written ``adapter_config.json``."""
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
