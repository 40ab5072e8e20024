"""What was written is compared with what the adapters give, and what has no effect is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lowrank_cases import LLAMA, Case, part, read_checkpoint, write_base
from rankloom.apply import transfer
from rankloom.change import evaluate
from rankloom.composition import Composition, compose
from rankloom.errors import AdapterError, IntegrityError, RankloomWarning
from rankloom.recipe.demands import Demands

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:BASE001")


def composed(folder: Path, count: int = 2, **options: Any) -> Composition:  # noqa: ANN401
    parts = [part(Case(seed=n, rank=3 + n).write(folder / str(n))) for n in range(count)]
    return compose(parts, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("method", ["exact", "ties", "iso_c"])
def test_every_tensor_is_replayed(tmp_path: Path, dtype: torch.dtype, method: str) -> None:
    write_base(tmp_path / "base", dtype)
    parameters = {"density": 0.5} if method == "ties" else {}
    composition = composed(tmp_path, method=method, parameters=parameters)
    report = composition.apply_to(tmp_path / "base", tmp_path / "out")
    # Thresholds are over all of a tensor, so one in twenty is replayed, at least one.
    assert report.replayed == (1 if method == "ties" else len(LLAMA))


def larger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every delta is a thousandth too large."""
    real = evaluate.merge_

    def merge_(weight: torch.Tensor, *more: Any, **options: Any) -> torch.Tensor:  # noqa: ANN401
        before = weight.clone()
        found = real(weight, *more, **options)
        return found.add_(found - before, alpha=1e-3)

    monkeypatch.setattr(evaluate, "merge_", merge_)


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tile lies one element further on."""
    real = transfer.write_at

    def write_at(sink: int, data: memoryview, offset: int) -> None:
        real(sink, memoryview(bytes(data[-4:]) + bytes(data[:-4])), offset)

    monkeypatch.setattr(transfer, "write_at", write_at)


def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is as long as it should be, and holds zeros."""
    real = transfer.write_at

    def write_at(sink: int, data: memoryview, offset: int) -> None:
        real(sink, memoryview(bytes(len(data))), offset)

    monkeypatch.setattr(transfer, "write_at", write_at)


def no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every result is NaN."""

    monkeypatch.setattr(evaluate, "merge_", lambda *_, out, **options: out.fill_(torch.nan))


@pytest.mark.parametrize("fault", [larger, elsewhere, nowhere, no_number])
def test_a_result_that_is_another_is_not_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], None],
) -> None:
    write_base(tmp_path / "base", torch.float32)
    composition = composed(tmp_path)
    fault(monkeypatch)
    with pytest.raises(IntegrityError, match=r"MRG009 model\.layers\.\d\..*weight\[\d+, \d+\] was"):
        composition.apply_to(tmp_path / "base", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def untrained(path: Path, *modules: str) -> Path:
    """Set B of some modules to what it begins with."""
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    for module in modules:
        tensors[f"base_model.model.{module}.lora_B.weight"].zero_()
    save_file(tensors, file, {"format": "pt"})
    return path


def test_an_untrained_target_is_refused_by_name_or_allowed(tmp_path: Path) -> None:
    module = next(iter(LLAMA))
    parts = [part(Case(seed=n).write(tmp_path / str(n)), f"part-{n}") for n in range(2)]
    untrained(tmp_path / "1", module)
    write_base(tmp_path / "base")
    with pytest.raises(
        AdapterError, match=f"NUM003 part-1 changes nothing in {module}.weight"
    ) as e:
        compose(parts).save(tmp_path / "out")
    assert "--allow-no-effect" in e.value.hint
    assert not (tmp_path / "out").exists()
    with pytest.raises(AdapterError, match="NUM003"):
        compose(parts).apply_to(tmp_path / "base", tmp_path / "out")
    with pytest.warns(RankloomWarning, match=f"NUM003 part-1 changes nothing in {module}"):
        compose(parts, demands=Demands(allow_no_effect=True)).save(tmp_path / "allowed")
    # Where its weight is 0, an adapter is asked for no effect.
    compose(parts, [1, [{"filter": module, "value": 0}, {"value": 1}]]).save(tmp_path / "out")


def test_an_adapter_without_any_effect_is_always_refused(tmp_path: Path) -> None:
    parts = [part(Case(seed=n).write(tmp_path / str(n)), f"part-{n}") for n in range(2)]
    untrained(tmp_path / "0", *LLAMA)
    for allow in (False, True):
        with pytest.raises(AdapterError, match="NUM003 part-0 changes nothing: a factor is zero"):
            compose(parts, demands=Demands(allow_no_effect=allow)).save(tmp_path / "out")


def test_what_vanishes_in_rounding_is_refused_or_allowed(tmp_path: Path) -> None:
    before = write_base(tmp_path / "base")
    weak = composed(tmp_path, 1, weights=[1e-12])
    with pytest.raises(
        AdapterError, match=r"NUM005 model\.layers.* and 5 more would keep every bit"
    ):
        weak.apply_to(tmp_path / "base", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    allowed = compose(weak.parts, [1e-12], demands=Demands(allow_no_effect=True))
    report = allowed.apply_to(tmp_path / "base", tmp_path / "out")
    assert report.changed == 0
    assert sorted(report.unchanged) == sorted(f"{module}.weight" for module in LLAMA)
    assert all(torch.equal(read_checkpoint(tmp_path / "out")[n], t) for n, t in before.items())
