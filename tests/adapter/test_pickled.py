"""Pickles become PEFT folders if they are asked to, and nothing in them ever runs."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lowrank_cases import Case
from rankloom.adapter.reader import read
from rankloom.convert import convert
from rankloom.errors import AdapterError, NotFoundError, UnsupportedAdapterError

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "model.layers.0.self_attn.q_proj"


def peft_folder(path: Path, *, old: bool = False) -> dict[str, torch.Tensor]:
    """Write a folder as PEFT did with safe_serialization=False; return its tensors."""
    Case(dtype=torch.bfloat16).write(path)
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    file.unlink()
    (path / "README.md").write_text("what it is")
    (path / "optimizer.pt").write_bytes(b"of the training")
    torch.save(tensors, path / "adapter_model.bin", _use_new_zipfile_serialization=not old)
    return tensors


@pytest.mark.parametrize("old", [False, True])
def test_a_pickled_peft_folder_becomes_one_of_safetensors(tmp_path: Path, old: bool) -> None:
    tensors = peft_folder(tmp_path / "old", old=old)
    report = convert(tmp_path / "old", tmp_path / "new", allow_pickle=True)
    found = load_file(tmp_path / "new/adapter_model.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    names = {file.name for file in (tmp_path / "new").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert report["modules"] == len(read(tmp_path / "new").targets) == len(tensors) // 2


def test_a_file_that_belongs_to_no_adapter_is_not_left_out_in_silence(tmp_path: Path) -> None:
    peft_folder(tmp_path / "old")
    (tmp_path / "old/run.py").write_text("")
    with pytest.raises(AdapterError, match=r"SEC001 run\.py can run code"):
        convert(tmp_path / "old", tmp_path / "new", allow_pickle=True)


def test_it_is_refused_everywhere_else_with_the_command_that_reads_it(tmp_path: Path) -> None:
    peft_folder(tmp_path / "old")
    with pytest.raises(AdapterError, match="SEC001") as refused:
        read(tmp_path / "old")
    assert any("loractl convert" in finding.fix for finding in refused.value.findings)
    for source in (tmp_path / "old", tmp_path / "old/adapter_model.bin"):
        with pytest.raises(UnsupportedAdapterError, match="SEC001") as refused:
            convert(source, tmp_path / "new")
        assert "--allow-pickle" in refused.value.hint
        assert not (tmp_path / "new").exists()


def test_a_disguised_pickle_is_refused_with_the_same_command(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(2)}, tmp_path / "style.safetensors")
    with pytest.raises(AdapterError, match="FMT015") as refused:
        convert(tmp_path / "style.safetensors", tmp_path / "out")
    assert "--allow-pickle" in refused.value.hint


@pytest.mark.parametrize("ending", ["pt", "bin", "ckpt"])
def test_files_of_kohya_and_loralib_are_read_from_pickles(tmp_path: Path, ending: str) -> None:
    a, b = torch.randn(2, 6).half(), torch.randn(4, 2).half()
    kohya = {"x.lora_down.weight": a, "x.lora_up.weight": b, "x.alpha": torch.tensor(1.0)}
    for kind, tensors, alpha in [
        ("kohya", kohya, None),
        ("loralib", OrderedDict([("x.lora_A", a), ("x.lora_B", b)]), 1.0),
    ]:
        torch.save(tensors, tmp_path / f"{kind}.{ending}")
        convert(tmp_path / f"{kind}.{ending}", tmp_path / kind, alpha=alpha, allow_pickle=True)
        found = load_file(tmp_path / kind / "adapter_model.safetensors")
        assert torch.equal(found["base_model.model.x.lora_B.weight"], b)
        assert read(tmp_path / kind).targets[0].change.scale == 0.5


class Runs:
    def __init__(self, *call: Any) -> None:  # noqa: ANN401
        self.call = call

    def __reduce__(self) -> Any:  # noqa: ANN401
        return self.call[0], self.call[1:]


def hostile(path: Path, sort: str, trace: Path) -> None:
    """Write a pickle that leaves a trace when any of it runs."""
    command = Runs(os.system, f"touch {trace}")
    if sort == "old pickle":
        path.write_bytes(pickle.dumps({"x.lora_A": command}))
    elif sort == "eval":
        torch.save({"x.lora_A": Runs(eval, f"open({str(trace)!r}, 'w')")}, path)
    elif sort == "in a zip":
        torch.save({"x.lora_A": torch.ones(2), "y": command}, path)
    elif sort == "key":
        torch.save({"x": {"y": [command]}}, path)
    else:
        import numpy

        torch.save({"x.lora_A": Runs(numpy.fromfile, str(trace))}, path)


@pytest.mark.parametrize("sort", ["old pickle", "eval", "in a zip", "key", "numpy"])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, sort: str) -> None:
    trace = tmp_path / "trace"
    Case().write(tmp_path / "old")
    (tmp_path / "old/adapter_model.safetensors").unlink()
    hostile(tmp_path / "old/adapter_model.bin", sort, trace)
    for source in (tmp_path / "old", tmp_path / "old/adapter_model.bin"):
        with pytest.raises(AdapterError, match="SEC001"):
            convert(source, tmp_path / "out", alpha=1, allow_pickle=True)
    assert not trace.exists()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"old"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"x.lora_A": torch.ones(1).expand(1 << 40)}, "larger than its bytes"),
        ({"x.lora_A": torch.ones(4).to_sparse()}, "sparse"),
        ({"x.lora_A": torch.ones(2, dtype=torch.complex128)}, "complex"),
        ({"state_dict": {"x": torch.ones(1)}}, "'state_dict', which is a dict"),
        ({3: torch.ones(1)}, "'3', which is no name"),
        ([torch.ones(1)], "holds a list"),
    ],
)
def test_what_is_no_dict_of_tensors_is_refused_by_name(
    tmp_path: Path, value: object, said: str
) -> None:
    torch.save(value, tmp_path / "in.pt")
    with pytest.raises(AdapterError, match=said):
        convert(tmp_path / "in.pt", tmp_path / "out", allow_pickle=True)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        convert(tmp_path / "in.pt", tmp_path / "out", allow_pickle=True)
    torch.save({"x.lora_A": torch.ones(500)}, tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    for cut in (0, 1, 30, len(data) // 2, len(data) - 5):
        (tmp_path / "in.pt").write_bytes(data[:cut])
        with pytest.raises(AdapterError, match="SEC001"):
            convert(tmp_path / "in.pt", tmp_path / "out", allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "in.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    with pytest.raises(AdapterError):
        convert(tmp_path / "in.pt", tmp_path / "out", allow_pickle=True)
    (tmp_path / "in.pt").write_bytes(np.random.default_rng(0).bytes(300))
    with pytest.raises(AdapterError, match="SEC001"):
        convert(tmp_path / "in.pt", tmp_path / "out", allow_pickle=True)
