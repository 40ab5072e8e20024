"""The accuracy that is promised, from folder to folder, beside dense float64."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lowrank_cases import Case, deltas, part, total
from rankloom.composition import compose

Q = "model.layers.0.self_attn.q_proj"
TRAINED = sorted((Path(__file__).parents[2] / "examples/adapters").glob("*/adapter_config.json"))


@pytest.mark.parametrize("count", [1, 2, 8, 32])
def test_an_exact_sum_is_exact_to_1e_6(tmp_path: Path, count: int) -> None:
    """Up to 32 adapters of mixed ranks, scales and dtypes, some of them taken away."""
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    cases = [
        Case({Q: (96, 64)}, 1 + n % 9, 2 ** (n % 7), n % 3 == 1, dtypes[n % 3], n)
        for n in range(count)
    ]
    paths = [case.write(tmp_path / str(n)) for n, case in enumerate(cases)]
    weights = [(-1) ** n * (0.3 + n / count) for n in range(count)]
    found = deltas(compose([part(path) for path in paths], weights).save(tmp_path / "out"))[Q]
    parts = [deltas(path, weight) for path, weight in zip(paths, weights, strict=True)]
    expected = total(*parts)[Q]
    assert (found - expected).norm() <= 1e-6 * expected.norm()


def shaped(folder: Path, values: torch.Tensor, seed: int) -> Path:
    """An adapter whose delta has these singular values."""
    rank = len(values)
    path = Case({Q: (96, 64)}, rank, rank, seed=seed).write(folder)
    tensors = load_file(path / "adapter_model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    b, a = (
        torch.linalg.qr(torch.randn(size, rank, generator=generator).double()).Q
        for size in (96, 64)
    )
    root = values.double().sqrt()
    for key, tensor in tensors.items():
        made = (b * root) if "lora_B" in key else (a * root).T
        tensor.copy_(made)
    save_file(tensors, path / "adapter_model.safetensors", {"format": "pt"})
    return path


SPECTRA = {
    "flat": torch.ones(8),
    "steep": 10.0 ** -torch.arange(8),
    "steeper": 100.0 ** -torch.arange(6),
    "one large": torch.tensor([1e3, 1e-3, 1e-3, 1e-3]),
    "rank-deficient": torch.tensor([1.0, 0.5, 0.25, 0.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_saved_rank_is_the_nearest_one(tmp_path: Path, spectrum: str, rank: int) -> None:
    values = SPECTRA[spectrum]
    paths = [shaped(tmp_path / str(seed), values, seed) for seed in (1, 2)]
    composition = compose([part(path) for path in paths], [1, -0.5], rank=rank)
    found = deltas(composition.save(tmp_path / "out"))[Q]
    delta = total(deltas(paths[0]), deltas(paths[1], -0.5))[Q]
    optimum = float(torch.linalg.svdvals(delta)[rank:].norm())
    residual = float((found - delta).norm())
    assert residual <= (1 + 1e-6) * optimum + 1e-6 * float(delta.norm())
    assert composition.errors.total.missing == pytest.approx(optimum, rel=1e-6, abs=1e-12)


@pytest.mark.skipif(len(TRAINED) < 2, reason="examples/adapters holds no trained pair")
@pytest.mark.parametrize(
    ("method", "given"),
    [("exact", {}), ("exact", {"rank": 6}), ("slerp", {"t": 0.3}), ("model_stock", {})],
)
def test_trained_adapters_too(tmp_path: Path, method: str, given: dict[str, Any]) -> None:
    one, other = (config.parent for config in TRAINED[:2])
    given = dict(given)
    rank = given.pop("rank", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = [part(one), part(other)]
        made = compose(pair, method=method, rank=rank, parameters=given)
        found = deltas(made.save(tmp_path / "out"))
    mine, theirs = deltas(one), deltas(other)
    for module in mine.keys() & theirs.keys():
        x, y = mine[module], theirs[module]
        cosine = (x * y).sum() / (x.norm() * y.norm())
        angle = torch.acos(cosine)
        expected = {
            "exact": x + y,
            "slerp": (torch.sin(0.7 * angle) * x + torch.sin(0.3 * angle) * y) / torch.sin(angle),
            "model_stock": 2 * cosine / (1 + cosine) * (x + y) / 2,
        }[method]
        lost = float(torch.linalg.svdvals(expected)[rank:].norm()) if rank else 0.0
        apart = float((found[module] - expected).norm())
        # float32 factors: 2^-24 for each of the products that are added.
        assert apart <= (1 + 1e-6) * lost + 1e-6 * float(expected.norm()), module
