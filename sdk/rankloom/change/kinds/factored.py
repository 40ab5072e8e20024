"""Kinds whose delta is a product of two matrices that are made of what they train.

Each has one function for the term coefficient · b·a; the delta is that product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from rankloom.change.kinds.reshape import as_weight
from rankloom.change.kinds.shapes import require
from rankloom.errors import AdapterError
from rankloom_kernels import Term

if TYPE_CHECKING:
    from rankloom.change.kinds import Factors, Formula

Tensors = Mapping[str, torch.Tensor]
Options = Mapping[str, Any]


def product(term: Callable[[Tensors, Options], Term], kind: str) -> Formula:
    """Return the formula of a kind from its factors."""

    def formula(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
        b, a, coefficient = term(tensors, options)
        return as_weight(coefficient * (b @ a), weight, kind)

    return formula


def alone(term: Callable[[Tensors, Options], Term]) -> Factors:
    """Return the factors of a kind as a list of one term."""
    return lambda tensors, options: [term(tensors, options)]


def adalora(tensors: Tensors, options: Options) -> Term:
    """B·(E ∘ A), times alpha/(first rank + 1e-5) (arXiv 2303.10512).

    Args:
        tensors: ``lora_A`` (r, in), ``lora_E`` (r, 1), ``lora_B`` (out, r).
        options: ``scale``.
    """
    return Term(tensors["lora_B"], tensors["lora_E"] * tensors["lora_A"], options["scale"])


def vera(tensors: Tensors, _options: Options) -> Term:
    """(λb ∘ B)·(λd ∘ A), the shared projections cut to the layer's size (arXiv 2310.11454).

    PVeRA (arXiv 2512.07703) has two halves in A and λd; without sampling it adds the first, its
    mean.

    Args:
        tensors: ``A`` (r or 2r, all in), ``B`` (all out, r), ``lambda_b`` (out,), ``lambda_d``
            (r or 2r,), ``width`` with as many columns as the layer has inputs.
    """
    rows = tensors["B"].shape[1]
    b = tensors["lambda_b"][:, None] * tensors["B"][: len(tensors["lambda_b"])]
    a = tensors["lambda_d"][:rows, None] * tensors["A"][:rows]
    return Term(b, a)


def vera_of(kind: str) -> Formula:
    """Return the formula of VeRA or PVeRA; only the base tells how many inputs a layer has."""

    def formula(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
        b, a, _ = vera(tensors, options)
        inputs = weight.shape[-1]
        require(inputs <= a.shape[1], f"{kind} has {a.shape[1]} inputs, the base {inputs}")
        return as_weight(b @ a[:, :inputs], weight, kind)

    return formula


def vblora(tensors: Tensors, options: Options) -> Term:
    """B·A, both put together of mixtures of a shared bank's vectors (arXiv 2405.15179).

    Args:
        tensors: ``bank`` (vectors, length); for A with tiles (r, in/length) and B with tiles
            (out/length, r): ``vblora_logits_A`` with one more axis of logits over the vectors, or
            ``vblora_logits_A_topk_indices`` and ``…_weights``, whose last weight is left out.
        options: ``topk``.
    """
    a = _mixtures(tensors, "vblora_logits_A", options["topk"])
    b = _mixtures(tensors, "vblora_logits_B", options["topk"])
    return Term(b.transpose(1, 2).reshape(-1, b.shape[1]), a.reshape(len(a), -1))


def _mixtures(tensors: Tensors, name: str, topk: int) -> torch.Tensor:
    """Return (…, length) from logits (…, vectors)."""
    if name in tensors:
        logits, indices = tensors[name].topk(topk, dim=-1)
        weights = torch.softmax(logits, dim=-1)
    else:
        indices = tensors[f"{name}_topk_indices"].long()
        saved = tensors[f"{name}_topk_weights"]
        weights = torch.cat([saved, 1 - saved.sum(-1, keepdim=True)], dim=-1)
    bank = tensors["bank"]
    require(bool((indices < len(bank)).all()), f"VB-LoRA names vectors beyond {len(bank)}")
    return (weights[..., None] * bank[indices]).sum(-2)


def unilora(tensors: Tensors, _options: Options) -> Term:
    """B·A, every element one of few shared values times a fixed scale (arXiv 2506.00799).

    Args:
        tensors: ``theta`` (n,); ``unilora_indices_A``, ``unilora_scales_A`` (r, in), and the same
            for B (out, r).
    """
    b, a = (
        tensors["theta"][tensors[f"unilora_indices_{side}"].long()]
        * tensors[f"unilora_scales_{side}"]
        for side in "BA"
    )
    return Term(b, a)


def tinylora(tensors: Tensors, options: Options) -> Term:
    """B·(Σ vᵢ Pᵢ)·A, with A and B from the base's singular vectors (arXiv 2602.04118).

    Args:
        tensors: ``tinylora_A`` (r, in), ``tinylora_B`` (out, r), ``tinylora_P`` (u, r, r), and
            ``v.<group>`` (u,) of all groups.
        options: ``modules``, ``groups``, ``size`` of a group, ``seed`` of the first module's P.

    Raises:
        AdapterError: there are several groups, and P does not tell in which the module is.
    """
    groups: int = options["groups"]
    projection = tensors["tinylora_P"]
    place = 0 if groups == 1 else _number(projection, options["seed"], options["modules"])
    group = min(place // options["size"], groups - 1)
    core = torch.einsum("u,ujk->jk", tensors[f"v.{group}"], projection)
    return Term(tensors["tinylora_B"], core @ tensors["tinylora_A"])


def _number(projection: torch.Tensor, seed: int, modules: int) -> int:
    """Return the number of the module that PEFT drew a projection for.

    Projections of other numbers differ by about their own size, while the file may have rounded
    its own to 16 bits.
    """
    std = projection.shape[1] ** -0.5
    found = []
    for number in range(modules):
        generator = torch.Generator().manual_seed(seed + number)
        drawn = torch.normal(0.0, std, projection.shape, generator=generator)
        if torch.allclose(drawn.double(), projection, rtol=2**-8, atol=1e-6):
            found.append(number)
    if len(found) != 1:
        message = "TEN009 nothing tells which of the vectors tinylora_v a module has: its"
        message += f" tinylora_P is {len(found)} of those that projection_seed {seed} gives"
        raise AdapterError(message, hint="merge it with PEFT, or train it with weight_tying=1")
    return found[0]


def delora(tensors: Tensors, options: Options) -> Term:
    """B·Ξ·A ∘ norms, Ξᵢ = λ/(r·‖bᵢ‖·‖aᵢ‖), norms those of W's columns (arXiv 2503.18225).

    Args:
        tensors: ``delora_A`` (r, in), ``delora_B`` (out, r), ``delora_lambda`` (1,),
            ``delora_w_norm`` (in,).
        options: ``rank``.
    """
    b, a = tensors["delora_B"], tensors["delora_A"]
    # PEFT's lower bound keeps a column of zeros from dividing by zero.
    norms = b.norm(dim=0).clamp(min=1e-4) * a.norm(dim=1).clamp(min=1e-4)
    core = tensors["delora_lambda"] / options["rank"] / norms
    return Term(b * core, a * tensors["delora_w_norm"])
