"""What holds of every kind of adapter: weights are linear, and what can be saved is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from click.testing import CliRunner

from acceptance import judge
from acceptance.judge import Case, Store
from acceptance.kinds import KINDS
from acceptance.test_acceptance import REFUSED
from loractl.main import main
from peft_cases import read_checkpoint
from rankloom.adapter.kinds import KINDS as TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREFERRED = ("bert", "attention", "bag", "vit", "convolutions")
WHOLE = ("saved-norm", "saved-head", "saved-embedding", "lora-tokens", "bias-all", "bias-lora-only")
"""Kinds of LORA that can be saved with a weight of 1 only."""
UNSAVED = (
    *("dora", "dora-embedding", "dora-conv", "lora-attention", "lora-bias", "kasa"),
    *("pissa", "olora"),
)
"""Kinds of LORA that cannot be saved."""
LIKELIEST = {kind: next(b for b in PREFERRED if Case(kind, b) in judge.cases()) for kind in KINDS}
CASES = [case for kind, base in LIKELIEST.items() if (case := Case(kind, base)).name not in REFUSED]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The bases on disk, in float32, and a home for the command."""
    root = tmp_path_factory.mktemp("bases")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKLOOM_HOME", str(root / "home"))
        patch.delenv("RANKLOOM_URL", raising=False)
        patch.setattr(judge, "LAYOUTS", [(torch.float32, False)])
        yield Store(root)


def export_of(case: Case) -> str:
    """Return what the tables say of saving a kind."""
    config = judge.config(case)
    assert config is not None
    if config.peft_type != "LORA":
        return TYPES[config.peft_type.value].export
    return "no" if case.kind in UNSAVED else "with weight 1" if case.kind in WHOLE else "yes"


def save(adapter: Path, weight: str, out: Path) -> bool:
    """Save a composition of one adapter; tell whether that can be done."""
    arguments = ["compose", str(adapter), "--weights", weight, "-o", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in {0, 6}, result.output
    return result.exit_code == 0


def applied(adapter: Path, weight: str, base: Path, out: Path) -> dict[str, torch.Tensor]:
    """Return what an adapter with a weight makes of a base."""
    done = judge.apply([adapter], base, out, weight)
    assert done.code == 0, done.error
    return read_checkpoint(out)


def near(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Compare float32 tensors of which the wanted ones were rounded a few times on their way."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name].double(), tensor.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_weight_multiplies_all_that_an_adapter_does(
    case: Case, store: Store, tmp_path: Path
) -> None:
    """W + w·(W′ − W), for any W′: the result of weight 1 tells that of every other weight."""
    judge.write(case, tmp_path / "a")
    base = store.base(case)
    before = read_checkpoint(base)
    once = applied(tmp_path / "a", "1", base, tmp_path / "once")
    twice = applied(tmp_path / "a", "-0.5", base, tmp_path / "other")
    near(twice, {name: 1.5 * w.double() - 0.5 * once[name].double() for name, w in before.items()})
    assert any(not torch.equal(once[name], w) for name, w in before.items())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_saved_is_the_same_and_the_tables_say_whether_it_can_be(
    case: Case, store: Store, tmp_path: Path
) -> None:
    judge.write(case, tmp_path / "a")
    base = store.base(case)
    can = {"yes": {"1", "-0.5"}, "with weight 1": {"1"}, "no": set()}[export_of(case)]
    for weight in ("1", "-0.5"):
        out = tmp_path / f"saved{weight}"
        assert save(tmp_path / "a", weight, out) == (weight in can)
        if case.kind == "loha-conv":  # the file does not tell the kernel, so the base refuses it
            assert "BASE002" in judge.apply([out], base, tmp_path / "refused").error
        elif weight in can:
            wanted = applied(tmp_path / "a", weight, base, tmp_path / f"direct{weight}")
            near(applied(out, "1", base, tmp_path / f"again{weight}"), wanted)
