"""Folders of adapters: written by PEFT itself, and broken on purpose."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from folders import PREFIX, SHAPES, adapter, factors, tensor
from rankloom.adapter import reader
from rankloom.errors import AdapterError, NotFoundError, UnsupportedAdapterError
from rankloom.finding import Finding, Severity
from rankloom.tensorfile.values import load_numpy

if TYPE_CHECKING:
    from pathlib import Path

Q = "model.layers.0.self_attn.q_proj"


def refusal(folder: Path) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        reader.read(folder)
    return caught.value


def error_rules(findings: tuple[Finding, ...]) -> set[str]:
    return {found.rule for found in findings if found.severity is Severity.ERROR}


# --- what PEFT writes -----------------------------------------------------------------------------


class Tiny(torch.nn.Module):
    """Two layers of two linear modules with different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(
            torch.nn.ModuleDict({"q": torch.nn.Linear(8, 6), "v": torch.nn.Linear(6, 8)})
            for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer["v"](layer["q"](x))
        return x


def trained(folder: Path, **options: Any) -> tuple[Tiny, Any]:  # noqa: ANN401 - PEFT's options
    """Save a PEFT adapter with random factors; return the plain model and PEFT's."""
    torch.manual_seed(0)
    base = Tiny()
    plain = Tiny()
    plain.load_state_dict(base.state_dict())
    options = {"r": 2, "lora_alpha": 3, "init_lora_weights": False, **options}
    wrapped = peft.get_peft_model(
        base, peft.LoraConfig(target_modules=options.pop("target_modules", ["q", "v"]), **options)
    )
    wrapped.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["auto_mapping"] = None  # it names this test, which no loader should import
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return plain, wrapped


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q": 3, r"layers\.1\.v": 1}},
        {"alpha_pattern": {"^layers.0.q": 7}, "rank_pattern": {"v": 4}, "use_rslora": True},
        {"target_modules": r"layers\.\d\.q"},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"init_lora_weights": "gaussian"},
    ],
    ids=str,
)
def test_every_delta_is_the_one_that_peft_merges(options: dict[str, Any], tmp_path: Path) -> None:
    plain, wrapped = trained(tmp_path / "a", **options)
    found = reader.read(tmp_path / "a")
    merged = wrapped.merge_and_unload().state_dict()
    before = plain.state_dict()
    changed = {name for name in before if not torch.equal(before[name], merged[name])}
    gaussian = options.get("init_lora_weights") == "gaussian"  # its B is still zero
    assert gaussian or {target.name for target in found.targets} == changed
    for target in found.targets:
        change = target.change
        a, b = (load_numpy(entry).astype(np.float64) for entry in (change.a, change.b))
        expected = (merged[target.name].double() - before[target.name].double()).numpy()
        # PEFT multiplies and adds in float32: its rounding is within a few steps of the weight's.
        np.testing.assert_allclose(change.scale * (b @ a), expected, atol=2e-6)
    assert found.kinds == (("rslora",) if options.get("use_rslora") else ("lora",))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_adapters_of_every_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["q"], init_lora_weights=False)
    wrapped = peft.get_peft_model(Tiny().to(dtype), config, autocast_adapter_dtype=False)
    wrapped.peft_config["default"].task_type = "CAUSAL_LM"
    wrapped.save_pretrained(tmp_path)
    found = reader.read(tmp_path)
    assert found.nbytes == found.parameters * dtype.itemsize
    for target in found.targets:
        layer = wrapped.get_submodule("base_model.model." + target.module)
        expected = layer.lora_A["default"].weight.detach().float().numpy()
        np.testing.assert_array_equal(load_numpy(target.change.a).astype(np.float32), expected)


@pytest.mark.parametrize("init", ["pissa_niter_4", "corda", "loftq", "lora_ga"])
def test_adapters_that_changed_their_base_beyond_recall_are_refused(
    init: str, tmp_path: Path
) -> None:
    error = refusal(adapter(tmp_path / "a", init_lora_weights=init))
    assert isinstance(error, UnsupportedAdapterError)
    assert error_rules(error.findings) == {"CFG010"}
    assert "path_initial_model_for_weight_conversion" in error.hint


# --- values ---------------------------------------------------------------------------------------


def test_an_adapter_is_a_value_with_its_facts(tmp_path: Path) -> None:
    tensors = factors({**SHAPES, "other": (4, 4)})
    found = reader.read(
        adapter(tmp_path / "a", tensors, target_modules=["q_proj", "v_proj", "other"])
    )
    assert [target.module for target in found.targets] == sorted({*SHAPES, "other"})
    assert found.ranks == (2,)
    assert found.kinds == ("lora",)
    assert found.parameters == 4 * (2 * 8 + 6 * 2) + 2 * (2 * 4)
    assert found.nbytes == 4 * found.parameters
    assert found.base is None
    assert [file.name for file in found.files] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert found.targets[0].change.scale == 2.0
    assert found.targets[0].change.shape == (6, 8)
    assert found == reader.read(tmp_path / "a")


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,3}(\.[0-9])?\.[a-z_]{1,4}", fullmatch=True),
        st.tuples(st.integers(1, 5), st.integers(1, 5)),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 4),
    st.floats(0.01, 100),
    st.booleans(),
)
def test_any_names_shapes_ranks_and_alphas(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: dict[str, tuple[int, int]],
    r: int,
    alpha: float,
    rslora: bool,
) -> None:
    folder = tmp_path_factory.mktemp("adapter")
    adapter(
        folder, factors(shapes, r), r=r, lora_alpha=alpha, use_rslora=rslora,
        target_modules=list(shapes),
    )  # fmt: skip
    found = reader.read(folder)
    assert {t.module: t.change.shape for t in found.targets} == shapes
    expected = alpha / (math.sqrt(r) if rslora else r)
    assert {t.change.scale for t in found.targets} == {expected}


# --- broken tensors -------------------------------------------------------------------------------

F32 = np.float32


def renamed(change: dict[str, str]) -> dict[str, Any]:
    tensors = factors()
    for old, new in change.items():
        tensors = {key.replace(old, new): value for key, value in tensors.items()}
    return tensors


def replaced(key: str, values: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {**factors(), f"{PREFIX}{Q}.{key}": tensor(values)}


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in factors().items() if name != f"{PREFIX}{Q}.{key}"}


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("TEN001", renamed({PREFIX: ""})),
    ("TEN001", renamed({PREFIX + "model.": "base_model."})),
    ("TEN001", renamed({PREFIX: "module.base_model.model."})),
    ("TEN001", renamed({PREFIX: PREFIX + PREFIX})),
    ("TEN002", without("lora_B.weight")),
    ("TEN002", without("lora_A.weight")),
    ("TEN002", {}),
    ("TEN003", replaced("lora_A.weight", np.zeros((8, 2), F32))),
    ("TEN003", replaced("lora_B.weight", np.zeros((2, 6), F32))),
    ("TEN004", replaced("lora_A.weight", np.zeros((3, 8), F32))),
    ("TEN004", replaced("lora_B.weight", np.zeros((6, 3), F32))),
    ("TEN004", factors(r=4)),
    ("TEN007", replaced("lora_A.weight", np.zeros((2, 8), np.int8))),
    ("FMT010", replaced("lora_A.weight", np.zeros((2, 8), np.uint8))),
    ("TEN009", replaced("lora_C.weight", np.zeros((2, 8), F32))),
    ("TEN009", replaced("lora_A.default.weight", np.zeros((2, 8), F32))),
    ("TEN009", {**factors(), PREFIX + "norm.weight": tensor(np.zeros(2, F32))}),
    ("TEN009", {**factors(), PREFIX + "norm.bias": tensor(np.zeros(2, F32))}),
    ("CFG007", replaced("lora_magnitude_vector", np.zeros(6, F32))),
]


@pytest.mark.parametrize(
    ("rule", "tensors"), BROKEN, ids=[f"{n}-{b[0]}" for n, b in enumerate(BROKEN)]
)
def test_each_broken_tensor_gets_its_rule(
    rule: str, tensors: dict[str, Any], tmp_path: Path
) -> None:
    error = refusal(adapter(tmp_path / "a", tensors))
    assert rule in error_rules(error.findings)
    assert error_rules(error.findings) <= {rule, "TEN009"}


def test_the_messages_name_module_and_shapes(tmp_path: Path) -> None:
    broken = replaced("lora_A.weight", np.zeros((3, 8), F32))
    message = refusal(adapter(tmp_path / "a", broken)).message
    assert Q in message
    assert "[3, 8]" in message
    assert "[6, 2]" in message


def test_use_dora_without_magnitudes_is_broken_not_unsupported(tmp_path: Path) -> None:
    error = refusal(adapter(tmp_path / "a", use_dora=True))
    assert "CFG007" in error.message
    assert error_rules(error.findings) == {"CFG007"}
    assert not isinstance(error, UnsupportedAdapterError)


def test_a_replicated_layer_is_refused(tmp_path: Path) -> None:
    error = refusal(adapter(tmp_path / "a", layer_replication=[[0, 10**6]]))
    assert error_rules(error.findings) == {"CFG009"}


def test_everything_that_is_wrong_is_reported_at_once(tmp_path: Path) -> None:
    tensors = {**without("lora_B.weight"), "stray": tensor(np.zeros(2, F32))}
    folder = adapter(tmp_path / "a", tensors, new_field=1)
    (folder / "run.py").write_text("")
    error = refusal(folder)
    assert error_rules(error.findings) == {"SEC001", "CFG011"}
    fixed = adapter(folder, tensors)
    (folder / "run.py").unlink()
    assert error_rules(refusal(fixed).findings) == {"TEN001", "TEN002"}


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "evil.py", "x.so", "w.pt", "notes.docx", "a.zip"]
)
def test_other_files_are_refused_by_name(name: str, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    (folder / name).write_bytes(b"x")
    error = refusal(folder)
    assert error_rules(error.findings) == {"SEC001"}
    assert name in error.message


LEFTOVERS = [
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "rng_state_3.pth",
    "trainer_state.json",
    "training_args.bin",
    "scaler.pt",
]


def test_a_trainer_checkpoint_is_an_adapter(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "checkpoint-900")
    for name in LEFTOVERS:
        (folder / name).write_bytes(b"x")
    (folder / "global_step900").mkdir()
    (folder / "README.md").write_text("# card")
    (folder / "tokenizer.json").write_text("{}")
    found = reader.read(folder)
    assert [file.name for file in found.files] == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert {finding.where for finding in found.findings} == {*LEFTOVERS, "global_step900"}
    assert {(f.rule, f.severity) for f in found.findings} == {("SEC001", Severity.INFO)}


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    secret = tmp_path / "secret"
    secret.write_text("x")
    (folder / "README.md").symlink_to(secret)
    error = refusal(folder)
    assert error_rules(error.findings) == {"SEC004"}
    (folder / "README.md").unlink()
    (folder / "LICENSE").write_text("x")
    (folder / "README.md").symlink_to("LICENSE")
    assert len(reader.read(folder).files) == 4


def test_linked_weights_are_not_even_opened(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").rename(tmp_path / "weights")
    (folder / "adapter_model.safetensors").symlink_to(tmp_path / "weights")
    assert error_rules(refusal(folder).findings) == {"SEC004"}


def test_a_pipe_does_not_hang_the_reader(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    os.mkfifo(folder / "tokenizer.json")
    assert error_rules(refusal(folder).findings) == {"SEC004"}


def test_names_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    (folder / "LICENSE").write_text("x")
    (folder / "LICENSe").write_text("x")
    assert "SEC004" in error_rules(refusal(folder).findings)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_that_lacks_a_file_says_which(name: str, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    (folder / name).unlink()
    assert name in refusal(folder).message


def test_pickled_weights_say_how_to_convert_them(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    error = refusal(folder)
    assert "--allow-pickle" in error.hint


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        reader.read(tmp_path / "nothing")


def test_the_record_gives_the_base(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    digest = "sha256:" + "0" * 64
    record = {
        "schema": 1,
        "files": [{"path": "adapter_config.json", "size": 1, "digest": digest}],
        "base": {"struct": digest},
    }
    (folder / "rankloom.json").write_text(json.dumps(record))
    found = reader.read(folder)
    assert found.base is not None
    assert found.base.struct == digest
    assert "rankloom.json" not in {file.name for file in found.files}
    (folder / "rankloom.json").write_text("{}")
    assert error_rules(refusal(folder).findings) == {"CFG001"}
