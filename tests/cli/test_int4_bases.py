"""What the command does with bases in 4 bits, as their libraries write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from int4_cases import FORMS, case, config, value_of
from rankloom.errors import IncompatibleError
from rankloom_kernels import Term, read_int4

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Run

Q = "model.layers.0.self_attn.q_proj"
HEAD = "lm_head"
UNTIED = "ignore:BASE001 identity of .* not checked:rankloom.errors.RankloomWarning"


def write_base(place: Path, form: str) -> dict[str, torch.Tensor]:
    """Write a base with one module in codes and a head of floats; return its tensors."""
    codes = {f"{Q}.{name}": tensor for name, tensor in case(form, 32, 32, 1, 0).tensors.items()}
    floats = torch.randn(48, 32, generator=torch.Generator().manual_seed(0))
    tensors = codes | {f"{HEAD}.weight": floats.bfloat16()}
    place.mkdir()
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    fields = {"model_type": "llama", "quantization_config": config(form, 32)}
    (place / "config.json").write_text(json.dumps(fields))
    return tensors


def write_adapter(place: Path, module: str, out: int) -> Term:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(shape, generator=generator) for shape in ((4, 32), (out, 4)))
    place.mkdir()
    name = f"base_model.model.{module}"
    tensors = {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    save_file(tensors, place / "adapter_model.safetensors", {"format": "pt"})
    fields = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "task_type": "CAUSAL_LM"}
    fields |= {"target_modules": [module.rpartition(".")[2]], "base_model_name_or_path": "org/b"}
    (place / "adapter_config.json").write_text(json.dumps(fields))
    return Term(b, a)


@pytest.mark.parametrize("form", FORMS)
def test_a_delta_on_codes_is_refused_by_name(form: str, run: Run, tmp_path: Path) -> None:
    write_base(tmp_path / "four", form)
    write_adapter(tmp_path / "on-codes", Q, 32)
    method = config(form, 32)["quant_method"]
    refused = IncompatibleError.exit_code
    said = run("apply", "./on-codes", "--base", "./four", "-o", "out", code=refused).output
    assert "BASE006" in said
    assert f"the base keeps {Q}.weight quantised" in said
    assert f"({method})" in said
    assert "before it was quantised" in said
    assert not (tmp_path / "out").exists()
    assert "BASE006" in run("validate", "./on-codes", "--against", "./four", code=1).stdout


@pytest.mark.filterwarnings(UNTIED)
@pytest.mark.parametrize("form", FORMS)
def test_a_delta_on_floats_beside_codes_leaves_these_alone(
    form: str, run: Run, tmp_path: Path
) -> None:
    before = write_base(tmp_path / "four", form)
    delta = write_adapter(tmp_path / "on-floats", HEAD, 48)
    run("apply", "./on-floats", "--base", "./four", "-o", "out")
    after = load_file(tmp_path / "out/model.safetensors")
    changed = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert changed == {f"{HEAD}.weight"}
    truth = before[f"{HEAD}.weight"].double() + delta.b.double() @ delta.a.double()
    assert torch.allclose(after[f"{HEAD}.weight"].double(), truth, rtol=2**-8)

    # What is written is still of its format, and is read as before.
    kept = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    assert kept == config(form, 32)
    names = {name.removeprefix(f"{Q}."): tensor for name, tensor in after.items() if Q in name}
    group = case(form, 32, 32, 1, 0).group
    weight = read_int4(kept, names)
    assert torch.equal(weight.dequantised().double(), value_of(form, names, group))


@pytest.mark.filterwarnings(UNTIED)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_scales_are_not_converted(dtype: str, run: Run, tmp_path: Path) -> None:
    write_base(tmp_path / "four", "gptq")
    write_adapter(tmp_path / "on-floats", HEAD, 48)
    command = ("apply", "./on-floats", "--base", "./four", "-o", "out", "--dtype", dtype)
    said = run(*command, code=IncompatibleError.exit_code).output
    assert "BASE006" in said
    assert "leave out the dtype" in said
    assert not (tmp_path / "out").exists()
