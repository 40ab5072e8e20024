from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lowrank_cases import (
    LLAMA,
    Case,
    deltas,
    fingerprint,
    part,
    read_checkpoint,
    total,
    write_base,
)
from rankloom.apply import folder as folder_module
from rankloom.apply import workers
from rankloom.apply.checkpoint import apply_to_checkpoint
from rankloom.apply.staged import FolderStage
from rankloom.base.reader import read
from rankloom.composition import Composition, compose
from rankloom.errors import (
    AdapterError,
    BackendUnavailableError,
    ConflictError,
    IncompatibleError,
    RankloomWarning,
    RefError,
)

if TYPE_CHECKING:
    from rankloom.apply.steps import ShardPlan
    from rankloom.apply.transfer import LocalSink

UNTIED = "BASE001 identity of .* not checked"
WEIGHTS = {1: [0.8], 2: [1.0, -0.5], 4: [0.3, -1.2, 2.0, 0.01]}
pytestmark = pytest.mark.filterwarnings(f"ignore:{UNTIED}:rankloom.errors.RankloomWarning")


def composed(
    tmp_path: Path, count: int, **options: object
) -> tuple[Composition, dict[str, torch.Tensor]]:
    weights = WEIGHTS[count]
    paths = [
        Case(seed=i, rank=3 + i, rslora=i == 1, **options).write(tmp_path / f"adapter-{i}")  # type: ignore[arg-type]
        for i in range(count)
    ]
    expected = total(*(deltas(path, weight) for path, weight in zip(paths, weights, strict=True)))
    return compose([part(path) for path in paths], weights), expected


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_tensor_is_the_float64_sum_rounded_once(
    tmp_path: Path, dtype: torch.dtype, count: int
) -> None:
    before = write_base(tmp_path / "base", dtype)
    composition, expected = composed(tmp_path, count, dtype=torch.bfloat16)
    report = composition.apply_to(tmp_path / "base", tmp_path / "out")
    after = read_checkpoint(tmp_path / "out")
    assert after.keys() == before.keys()
    for name, weight in before.items():
        delta = expected.get(name.removesuffix(".weight"))
        if delta is None:
            assert torch.equal(after[name], weight)
            continue
        exact = weight.double() + delta
        if dtype in {torch.float32, torch.float64}:
            bound = (2e-6 + 2e-6 * weight.abs().max()) if dtype == torch.float32 else 1e-14
            assert (after[name].double() - exact).abs().max() <= bound
        else:
            # At most 2560 elements whose delta is as large as the weight: a float32 sum falls on
            # the other side of a bfloat16 boundary once in 2^16, of a float16 one once in 2^13.
            assert (after[name] != exact.to(dtype)).sum() <= (3 if dtype == torch.float16 else 1)
    assert (report.targets, report.changed) == (len(LLAMA), len(LLAMA))
    files = list((tmp_path / "out").iterdir())
    assert report.nbytes == sum(path.stat().st_size for path in files)


def test_files_keep_their_layout_and_companions_go_along(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_base(base)
    for name in ("pytorch_model.bin", "old.pt", "pytorch_model.bin.index.json", ".cache"):
        (base / name).write_text("left behind")
    (base / "consolidated.safetensors").write_text("weights that no index lists")
    (base / "modeling.py").write_text("code")
    (base / "original").mkdir()
    composition, _ = composed(tmp_path, 2)
    composition.apply_to(base, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "modeling.py",
        *(path.name for path in base.glob("model-*.safetensors")),
    }
    for path in base.glob("model-*.safetensors"):
        old, new = path.read_bytes(), (tmp_path / "out" / path.name).read_bytes()
        header = 8 + int.from_bytes(old[:8], "little")
        assert old[:header] == new[:header]
        assert len(old) == len(new)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_conversion_rounds_once_and_says_so_in_config_and_index(tmp_path: Path, dtype: str) -> None:
    before = write_base(tmp_path / "base", torch.bfloat16)
    composition, expected = composed(tmp_path, 2)
    composition.apply_to(tmp_path / "base", tmp_path / "out", dtype=dtype)
    wanted = getattr(torch, dtype)
    after = read_checkpoint(tmp_path / "out")
    for name, weight in before.items():
        if name == "model.steps":
            assert torch.equal(after[name], weight)
            continue
        assert after[name].dtype == wanted
        exact = weight.double() + expected.get(name.removesuffix(".weight"), 0)
        if wanted in {torch.float32, torch.float64}:
            bound = 2e-6 + 2e-6 * weight.abs().max() if wanted == torch.float32 else 1e-14
            assert (after[name].double() - exact).abs().max() <= bound
        else:
            assert (after[name] != exact.to(wanted)).sum() <= 3  # as in the first test
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["torch_dtype"] == dtype
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in after.values())
    for file in (tmp_path / "out").glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    write_base(tmp_path / "base", shards=3)
    composition, _ = composed(tmp_path, 2)
    before = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            composition.apply_to(tmp_path / "base", tmp_path / f"out-{count}")
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    for path in (tmp_path / "out-1").iterdir():
        assert path.read_bytes() == (tmp_path / "out-3" / path.name).read_bytes()


def test_workers_help_with_the_only_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_base(tmp_path / "base", shards=1)
    real, seen = workers.carry_out, set()

    def carry_out(*arguments: Any) -> bool:  # noqa: ANN401
        seen.add(threading.get_ident())
        time.sleep(0.02)
        return real(*arguments)

    def create(stage: FolderStage, plan: ShardPlan) -> LocalSink:
        time.sleep(0.05)  # the others look for work meanwhile
        return made(stage, plan)

    made = FolderStage.create
    monkeypatch.setattr(FolderStage, "create", create)
    monkeypatch.setattr(workers, "carry_out", carry_out)
    composed(tmp_path, 1)[0].apply_to(tmp_path / "base", tmp_path / "out", workers=3)
    assert len(seen) == 3


@pytest.mark.filterwarnings("ignore:MRG003")  # that large, as is said
def test_unknown_dtype_and_overflow(tmp_path: Path) -> None:
    write_base(tmp_path / "base", torch.float32)
    composition, _ = composed(tmp_path, 1)
    with pytest.raises(RefError, match="'int8'"):
        composition.apply_to(tmp_path / "base", tmp_path / "out", dtype="int8")
    large = compose([composition.parts[0]], [1e9])
    with pytest.raises(IncompatibleError, match=r"NUM004 values of model.*overflow F16"):
        large.apply_to(tmp_path / "base", tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_gpt2_stores_in_out(tmp_path: Path) -> None:
    shapes = {"transformer.h.0.attn.c_attn": (96, 32), "transformer.h.0.mlp.c_fc": (32, 32)}
    stored = {name: shape[::-1] for name, shape in shapes.items()}
    before = write_base(tmp_path / "base", shapes=stored, model_type="gpt2")
    folder = Case(shapes).write(tmp_path / "adapter")
    compose([part(folder)]).apply_to(tmp_path / "base", tmp_path / "out")
    after = read_checkpoint(tmp_path / "out")
    for module, delta in deltas(folder).items():
        exact = before[f"{module}.weight"].double() + delta.T
        assert (after[f"{module}.weight"] != exact.to(torch.bfloat16)).sum() <= 1


def test_two_spellings_of_one_tensor_are_summed_before_rounding(tmp_path: Path) -> None:
    before = write_base(tmp_path / "base")
    bare = {name.removeprefix("model."): shape for name, shape in LLAMA.items()}
    one = Case(seed=1).write(tmp_path / "one")
    two = Case(bare, seed=2).write(tmp_path / "two")
    report = compose([part(one), part(two)]).apply_to(tmp_path / "base", tmp_path / "out")
    assert report.targets == len(LLAMA)
    after = read_checkpoint(tmp_path / "out")
    other = deltas(two)
    for module, delta in deltas(one).items():
        exact = before[f"{module}.weight"].double() + delta + other[module.removeprefix("model.")]
        assert (after[f"{module}.weight"] != exact.to(torch.bfloat16)).sum() <= 1


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    composition, _ = composed(tmp_path, 1)
    calls: list[tuple[int, int]] = []
    report = composition.apply_to(
        tmp_path / "base", tmp_path / "out", progress=lambda *call: calls.append(call)
    )
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (report.nbytes, report.nbytes)


def refused(tmp_path: Path, composition: Composition, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        composition.apply_to(tmp_path / "base", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_target_that_the_base_lacks_is_refused_with_candidates(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    shapes = {"model.layers.9.self_attn.q_proj": (48, 32)}
    composition = compose([part(Case(shapes).write(tmp_path / "adapter"))])
    match = r"has no tensor model\.layers\.9.*nearest: model\.layers\.[01]\.self_attn\.q_proj"
    refused(tmp_path, composition, IncompatibleError, match)


def test_a_shape_that_differs_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    shapes = {"model.layers.1.self_attn.q_proj": (48, 33)}
    composition = compose([part(Case(shapes).write(tmp_path / "adapter"))])
    match = r"BASE002 .*q_proj.weight is \(48, 32\) in the base, but the change is \(48, 33\)"
    refused(tmp_path, composition, IncompatibleError, match)


def test_a_quantised_base_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path / "base", torch.int8)
    refused(tmp_path, composed(tmp_path, 1)[0], IncompatibleError, "BASE006 .*stored as I8")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_codes_of_no_known_name_are_not_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    """Neither config nor names tell that the floats beside them are scales."""
    write_base(tmp_path / "base")
    [file] = (tmp_path / "base").glob("*1-of*.safetensors")
    codes = {"model.layers.7.extra.weight": torch.zeros(4, 4).to(dtype)}
    save_file(load_file(file) | codes, file, {"format": "pt"})
    index = tmp_path / "base" / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    listed["weight_map"] |= dict.fromkeys(codes, file.name)
    index.write_text(json.dumps(listed))
    composition = composed(tmp_path, 1)[0]
    with pytest.raises(IncompatibleError, match=r"BASE006 .*extra.weight.* its scales"):
        composition.apply_to(tmp_path / "base", tmp_path / "out", dtype="float16")


def test_another_base_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    known = fingerprint("another", exact="1", bf16="1")
    folder = Case().write(tmp_path / "adapter")
    match = "BASE003 .*is not the base that the adapters were made for: struct "
    refused(tmp_path, compose([part(folder, base=known)]), IncompatibleError, match)


def test_the_right_base_passes_without_a_warning(tmp_path: Path) -> None:
    from rankloom.base.fingerprint import fingerprint as compute

    write_base(tmp_path / "base")
    known = compute(read(tmp_path / "base"))
    folder = Case().write(tmp_path / "adapter")
    compose([part(folder, base=known)]).apply_to(tmp_path / "base", tmp_path / "out")
    assert (tmp_path / "out").is_dir()


def test_what_cannot_be_compared_is_a_warning(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    base = read(tmp_path / "base")
    composition, _ = composed(tmp_path, 1)
    known = fingerprint("base", exact="1")
    for number, (expected, found, match) in enumerate(
        [
            (None, known, UNTIED),
            (known, None, "cannot be compared"),
            (known, fingerprint("base"), "names and shapes only"),
        ]
    ):
        with pytest.warns(RankloomWarning, match=match):
            apply_to_checkpoint(
                base, composition.changes, tmp_path / f"{number}", expected=expected, found=found
            )


def test_an_output_that_exists_is_left_alone(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(ConflictError):
        composed(tmp_path, 1)[0].apply_to(tmp_path / "base", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_no_space_is_known_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(tmp_path / "base")
    usage = folder_module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(folder_module.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    refused(tmp_path, composed(tmp_path, 1)[0], BackendUnavailableError, "free")


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    composition, _ = composed(tmp_path, 1)
    weights = composition.parts[0].adapter.path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])  # the last factor is cut
    refused(tmp_path, composition, AdapterError, "FMT008")


def test_an_interrupt_in_the_progress_callback_leaves_no_output(tmp_path: Path) -> None:
    write_base(tmp_path / "base")

    def stop(done: int, whole: int) -> None:
        if done > whole // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        composed(tmp_path, 1)[0].apply_to(tmp_path / "base", tmp_path / "out", progress=stop)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out-*"))


def test_a_killed_process_leaves_no_output(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    folder = Case().write(tmp_path / "adapter")
    code = f"""
        import os, signal
        from pathlib import Path
        from lowrank_cases import part
        from rankloom.composition import compose
        def die(done, whole):
            if done > whole // 2:
                os.kill(os.getpid(), signal.SIGKILL)
        where = Path({str(tmp_path)!r})
        compose([part(Path({str(folder)!r}))]).apply_to(where / "base", where / "out", progress=die)
    """
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tests, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()


def test_without_copy_file_range_the_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    write_base(tmp_path / "base")
    composition, _ = composed(tmp_path, 2)
    composition.apply_to(tmp_path / "base", tmp_path / "kernel")
    monkeypatch.delattr(os, "copy_file_range")
    composition.apply_to(tmp_path / "base", tmp_path / "chunks")
    for path in (tmp_path / "kernel").iterdir():
        assert path.read_bytes() == (tmp_path / "chunks" / path.name).read_bytes()
