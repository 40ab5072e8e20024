"""What was saved is read again and compared with what it was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from lowrank_cases import Case, part
from rankloom.change.replay import sample
from rankloom.compose import forms
from rankloom.compose import save as saving
from rankloom.composition import Composition, compose
from rankloom.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rankloom.compose.forms import Form


def composed(folder: Path) -> Composition:
    parts = [part(Case(seed=n, rank=3 + n).write(folder / str(n))) for n in range(2)]
    return compose(parts, [0.7, -1.3])


def scale_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that is one less than it is: every scale is off."""
    real: Callable[..., dict[str, Any]] = saving._pretty  # type: ignore[assignment]

    def pretty(value: Mapping[str, Any]) -> bytes:
        return real({**value, "lora_alpha": value["lora_alpha"] + 1})  # type: ignore[return-value]

    monkeypatch.setattr(saving, "_pretty", pretty)


def weight_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coefficients are rounded to three digits."""
    real = forms.join

    def join(terms: list[Any], **options: Any) -> Any:  # noqa: ANN401
        rounded = [term._replace(coefficient=round(term.coefficient, 3)) for term in terms]
        return real(rounded, **options)

    monkeypatch.setattr(forms, "join", join)


def swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The values of a factor lie in another order."""
    real = saving.as_bytes
    monkeypatch.setattr(saving, "as_bytes", lambda tensor: real(tensor.flip(0)))


def lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target is not written."""
    real = saving._write_tensors

    def write(some: list[Form], path: Path) -> None:
        real(some[1:], path)

    monkeypatch.setattr(saving, "_write_tensors", write)


@pytest.mark.parametrize("fault", [scale_lost, weight_lost, swapped, lost])
def test_a_folder_that_says_something_else_is_not_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], None],
) -> None:
    composition = composed(tmp_path)
    fault(monkeypatch)
    with pytest.raises(IntegrityError, match=r"MRG009 model\.layers\.\d\..*proj\.weight"):
        composition.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tiles_differ_by_seed_and_name_and_stay_inside() -> None:
    region = (2, range(0, 40, 4), range(500))
    tiles = {sample(str(seed), name, region) for seed in range(20) for name in "ab"}
    assert len(tiles) > 30
    for expert, rows, columns in tiles:
        assert expert == 2
        assert isinstance(rows, range)
        assert isinstance(columns, range)
        assert (len(rows), len(columns)) == (4, 64)
        assert set(rows) <= set(region[1])
        assert set(columns) <= set(region[2])
    assert sample("1", "x", (range(3),)) == (range(3),)
    assert sample("1", "x", ()) == ()


def test_seeds_reach_the_whole_tensor() -> None:
    met = torch.zeros(16, 200, dtype=torch.bool)
    for seed in range(2000):
        rows, columns = sample(str(seed), "x", (range(16), range(200)))
        assert isinstance(rows, range)
        assert isinstance(columns, range)
        met[rows.start : rows.stop, columns.start : columns.stop] = True
    assert met.any(0).all()
    assert met.any(1).all()
