"""Files of other tools become PEFT folders with the same change."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapter_folder import MODULES, WIDTH
from command_line import Run
from rankloom.adapter import reader
from rankloom.errors import AdapterError

ENDS = {
    "kohya": (".lora_down.weight", ".lora_up.weight"),
    "diffusers": (".lora.down.weight", ".lora.up.weight"),
    "loralib": (".lora_A", ".lora_B"),
}


def _source(path: Path, kind: str, *, flat: bool = False) -> dict[str, np.ndarray]:
    """Write a file with ranks 2, 3, … and, for kohya, alpha 1; return ΔW by module."""
    random = np.random.default_rng(3)
    tensors, deltas = {}, {}
    for rank, module in enumerate(MODULES, 2):
        a = random.normal(size=(rank, WIDTH)).astype(np.float32)
        b = random.normal(size=(WIDTH, rank)).astype(np.float32)
        name = "lora_te_" + module.replace(".", "_") if flat else module
        tensors |= {name + ENDS[kind][0]: a, name + ENDS[kind][1]: b}
        scale = {"kohya": 1 / rank, "diffusers": 1.0, "loralib": 5 / rank}[kind]
        if kind == "kohya":
            tensors[name + ".alpha"] = np.array(1, np.float32)
        deltas[module] = scale * (b.astype(np.float64) @ a.astype(np.float64))
    save_file(tensors, path)
    return deltas


@pytest.mark.parametrize("kind", ENDS)
def test_the_change_is_the_source_s(run: Run, place: Path, kind: str) -> None:
    deltas = _source(place / "in.safetensors", kind)
    run("convert", "in.safetensors", "-o", "out", *(["--alpha", "5"] if kind == "loralib" else []))
    found = {target.module: target.change for target in reader.read(place / "out").targets}
    saved = load_file(place / "out/adapter_model.safetensors")
    assert found.keys() == deltas.keys()
    for module, delta in deltas.items():
        a, b = (saved[f"base_model.model.{module}.lora_{x}.weight"].astype(float) for x in "AB")
        # B holds its products with numbers exactly; both sides are products in float64.
        np.testing.assert_allclose(found[module].scale * (b @ a), delta, rtol=1e-13, atol=1e-14)


def test_a_kohya_file_is_applied(run: Run, place: Path) -> None:
    deltas = _source(place / "in.safetensors", "kohya", flat=True)
    run("convert", "in.safetensors", "-o", "out", "--base", "base")
    run("apply", "./out", "--base", "base", "-o", "merged")
    before, after = (load_file(place / n / "model.safetensors") for n in ("base", "merged"))
    for module, delta in deltas.items():
        want = before[f"{module}.weight"].astype(np.float64) + delta
        # One rounding to float32, and the error of a float32 product of rank three.
        np.testing.assert_allclose(after[f"{module}.weight"], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ("x.hada_w1_a", "x is LOHA"),
        ("x.lora_mid.weight", "x has one factor"),
        ("x.lokr_w1", "x is LOKR"),
        ("x.lora_up.weight", "one factor"),
        ("unet.x.lora_A.weight", "kohya and diffusers"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    run: Run, place: Path, extra: str, named: str
) -> None:
    _source(place / "in.safetensors", "kohya")
    tensors = load_file(place / "in.safetensors")
    save_file({**tensors, extra: np.ones((2, 2), np.float32)}, place / "bad.safetensors")
    code = AdapterError.exit_code
    assert named in run("convert", "bad.safetensors", "-o", "out", code=code).stderr
    assert not (place / "out").exists()


def test_names_and_alpha_that_nothing_tells_are_refused(run: Run, place: Path) -> None:
    code = AdapterError.exit_code
    _source(place / "flat.safetensors", "kohya", flat=True)
    assert "--base" in run("convert", "flat.safetensors", "-o", "out", code=code).stderr
    _source(place / "lib.safetensors", "loralib")
    assert "--alpha" in run("convert", "lib.safetensors", "-o", "out", code=code).stderr
