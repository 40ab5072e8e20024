"""The report on interference, as a person and as a script meet it."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from adapter_folder import MODULES
from command_line import Run, answer


def delta(folder: Path, module: str, rank: int) -> np.ndarray:
    tensors = load_file(folder / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.{module}.lora_{name}.weight"] for name in "AB")
    product: np.ndarray = 8 / rank * (b.astype(float) @ a.astype(float))
    return product


def test_figures_are_those_of_the_deltas(run: Run, place: Path) -> None:
    report = answer(run("interference", "./zh", "./qa", "--weights", "1,-2", "--json"))
    for scope, module in zip(report["targets"], MODULES, strict=True):
        one, two = delta(place / "zh", module, 4), -2 * delta(place / "qa", module, 2)
        [pair] = scope["pairs"]
        assert scope["name"] == f"{module}.weight"
        size = np.linalg.norm(one) * np.linalg.norm(two)
        # The report gives six digits.
        assert pair["cosine"] == pytest.approx(float((one * two).sum() / size), rel=1e-4)
        ratio = float(np.linalg.norm(one) / np.linalg.norm(two))
        assert pair["ratio"] == pytest.approx(ratio, rel=1e-4)


def test_thresholds_that_are_given_decide_how_it_ends(run: Run, place: Path) -> None:
    said = run("interference", "./zh", "./qa").stdout
    assert "cosine" in said
    assert "model.layers.1" in said
    run("interference", "./zh", "./qa", "--max-dominance", "1e6", "--min-cosine", "-1")
    said = run("interference", "./zh", "./qa", "--max-dominance", "1.0001", code=1).stdout
    assert "INT001" in said
    opposed = ("interference", "./zh", "./zh2", "--min-cosine", "-0.5")
    (place / "zh2").symlink_to(place / "zh")
    said = run(*opposed, "--weights", "1,-1", "--level", "total", code=1).stdout
    assert "INT002" in said
    run(*opposed, "--weights", "1,1")


def test_a_heatmap_is_drawn_of_two(run: Run, place: Path) -> None:
    run("interference", "./zh", "./qa", "--heatmap", "map.svg")
    assert (place / "map.svg").read_text().startswith("<svg")
    run("interference", "./zh", "--heatmap", "no.svg", code=2)
