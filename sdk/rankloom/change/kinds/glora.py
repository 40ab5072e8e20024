"""GLoRA (arXiv 2306.07967): W and its bias are scaled and shifted by small paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.change.kinds.shapes import require
from rankloom.errors import UnsupportedAdapterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    Tensors = Mapping[str, torch.Tensor]
    Options = Mapping[str, Any]


def glora(tensors: Tensors, _options: Options, weight: torch.Tensor) -> torch.Tensor:
    """W′ = W + W ∘ A + B.

    Args:
        tensors: of each path A and B ``.Xd`` and ``.Xu``, whose product it is, or ``.X`` or
            ``.zeros``, which it is itself: (out, in), (out, 1) or (1,).
            Where the layer has no bias, C, D and E too, which then must be zero.
        weight: (out, in).

    Raises:
        UnsupportedAdapterError: they are not zero.
    """
    for name in "CDE":
        if f"{name}.zeros" in tensors and tensors[f"{name}.zeros"].any():
            message = f"TEN009 GLoRA: the path {name} holds values, though it is to be none"
            raise UnsupportedAdapterError(message, hint="save the adapter again with PEFT")
    return weight * _path(tensors, "A", weight) + _path(tensors, "B", weight)


def glora_bias(tensors: Tensors, _options: Options, weight: torch.Tensor) -> torch.Tensor:
    """b′ = b + b ∘ D + E + W·C.

    Args:
        tensors: as for :func:`glora`, of the paths D and E: (out,) or (1,), and of C: (in, 1);
            ``base.weight``, which is W.
        weight: the bias (out,).
    """
    coupling, base = _product(tensors, "C"), tensors["base.weight"]
    what = f"GLoRA has a path {tuple(coupling.shape)}, but the base has {tuple(base.shape)}"
    require(coupling.shape == (base.shape[1], 1), what)
    added = (base @ coupling).squeeze(1)
    return weight * _path(tensors, "D", weight) + _path(tensors, "E", weight) + added


def _path(tensors: Tensors, name: str, weight: torch.Tensor) -> torch.Tensor:
    """Return one path, in a shape that goes with the weight's."""
    path = _product(tensors, name)
    sizes = zip(path.shape, weight.shape, strict=False)
    fits = path.dim() == weight.dim() and all(size in {1, whole} for size, whole in sizes)
    what = f"GLoRA has a path {tuple(path.shape)}, but the base has {tuple(weight.shape)}"
    require(path.shape == (1,) or fits, what)
    return path


def _product(tensors: Tensors, name: str) -> torch.Tensor:
    if f"{name}.Xd" in tensors:
        return tensors[f"{name}.Xd"] @ tensors[f"{name}.Xu"]
    return tensors[f"{name}.X"] if f"{name}.X" in tensors else tensors[f"{name}.zeros"]
