"""4-bit weights as GPTQ, AWQ and compressed-tensors store them, written and read by other means."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rankloom_kernels import Int4, read_int4

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMS = ["gptq", "gptq act-order", "gptq_v2", "gptq sym", "awq", "packed", "packed sym"]
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def config(form: str, size: int) -> dict[str, Any]:
    """What the libraries write in config.json."""
    if form == "awq":
        head = {"quant_method": "awq", "bits": 4, "group_size": size}
        return head | {"version": "gemm", "zero_point": True, "modules_to_not_convert": None}
    if form.startswith("gptq"):
        head = {"quant_method": "gptq", "bits": 4, "group_size": size, "damp_percent": 0.01}
        kind = {"sym": "sym" in form, "desc_act": "act-order" in form, "true_sequential": True}
        return head | kind | {"checkpoint_format": "gptq_v2" if "v2" in form else "gptq"}
    weights = {"num_bits": 4, "type": "int", "symmetric": "sym" in form, "actorder": None}
    weights |= {"strategy": "channel"} if size == -1 else {"strategy": "group", "group_size": size}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}
    head = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    return head | {"config_groups": groups, "ignore": ["lm_head"], "kv_cache_scheme": None}


def words(numbers: np.ndarray, places: list[int] | range = range(8)) -> torch.Tensor:
    """Pack each 8 numbers along the last axis, the first place lowest, one bit field at a time."""
    padded = np.pad(numbers, [(0, 0), (0, -numbers.shape[1] % 8)])
    eights = padded.reshape(len(numbers), -1, 8).astype(np.uint32)
    packed = np.zeros(eights.shape[:2], np.uint32)
    for place, element in enumerate(places):
        packed |= eights[:, :, element] << np.uint32(4 * place)
    return torch.from_numpy(packed.view(np.int32))


def stored(form: str, codes: np.ndarray, zero: np.ndarray, scale: torch.Tensor) -> dict[str, Any]:
    """Codes (out, in), zeros and scales (out, groups), from 0 to 15, in a format."""
    if form == "awq":
        order = AWQ_ORDER
        packed = {"qweight": words(codes.T, order), "qzeros": words(zero.T, order)}
        return packed | {"scales": scale.T.contiguous()}
    if form.startswith("gptq"):
        packed = {"qweight": words(codes).T.contiguous()}
        packed["qzeros"] = words(zero.T - (0 if "v2" in form else 1))
        return packed | {"scales": scale.T.contiguous()}
    packed = {"weight_packed": words(codes), "weight_scale": scale}
    packed["weight_shape"] = torch.tensor(codes.shape)
    return packed if "sym" in form else packed | {"weight_zero_point": words(zero.T).T.contiguous()}


def elements(tensor: torch.Tensor, places: list[int] | range = range(8)) -> np.ndarray:
    """Return what :func:`words` packed."""
    bits = tensor.numpy().view(np.uint32)
    eights = np.zeros((*bits.shape, 8), np.int64)
    for place, element in enumerate(places):
        eights[:, :, element] = bits >> np.uint32(4 * place) & np.uint32(15)
    return eights.reshape(len(bits), -1)


def value_of(form: str, found: Mapping[str, torch.Tensor], group: np.ndarray) -> torch.Tensor:
    """Return the (out, in) float64 weight that the tensors of a module stand for."""
    if form.startswith("packed"):
        scale, codes = found["weight_scale"], elements(found["weight_packed"])[:, : len(group)]
        zero = np.full(scale.shape, 8)
        if "sym" not in form:
            zero = elements(found["weight_zero_point"].T.contiguous()).T[: len(scale)]
    elif form == "awq":
        scale, codes = found["scales"].T, elements(found["qweight"], AWQ_ORDER).T
        zero = elements(found["qzeros"], AWQ_ORDER).T
    else:
        scale, codes = found["scales"].T, elements(found["qweight"].T.contiguous())
        zero = elements(found["qzeros"]).T + (0 if "v2" in form else 1)
    return torch.from_numpy((codes - zero[:, group]) * scale.double().numpy()[:, group])


@dataclasses.dataclass
class Case:
    """A module that nobody of ours has written."""

    form: str
    size: int
    tensors: dict[str, torch.Tensor]
    group: np.ndarray

    def read(self) -> Int4:
        copies = {name: tensor.clone() for name, tensor in self.tensors.items()}
        return read_int4(config(self.form, self.size), copies)


def case(
    form: str, out: int, size: int, groups: int, seed: int, dtype: torch.dtype = torch.float16
) -> Case:
    rng = np.random.default_rng(seed)
    width = size * groups
    group = np.arange(width) // size
    zero = rng.integers(1, 16, (out, groups))
    scale = torch.from_numpy(rng.uniform(0.01, 0.02, (out, groups))).to(dtype)
    codes = rng.integers(0, 16, (out, width))
    extra = {}
    if "act-order" in form:
        group = rng.permutation(group)
        extra = {"g_idx": torch.from_numpy(group).int()}
    zero = np.full_like(zero, 8) if "sym" in form else zero
    return Case(form, size, stored(form, codes, zero, scale) | extra, group)
