from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lowrank_cases import LLAMA, Case, fingerprint, part
from rankloom.errors import IncompatibleError, RefError
from rankloom.finding import Severity
from rankloom.recipe.checks import common_base
from rankloom.recipe.plan import make_plan

if TYPE_CHECKING:
    from pathlib import Path

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"


def test_plan_says_what_each_adapter_brings(tmp_path: Path) -> None:
    one = part(Case(rank=4, alpha=8).write(tmp_path / "one"))
    some = {Q: LLAMA[Q]}
    two = part(Case(some, rank=9, alpha=6, rslora=True, seed=1).write(tmp_path / "two"))
    plan = make_plan([one, two], [1, -0.5])
    targets = {target.module: target for target in plan.targets}
    assert [target.name for target in plan.targets] == sorted(f"{name}.weight" for name in LLAMA)
    assert targets[Q].rank == plan.rank == 13
    assert targets[Q].shape == (48, 32)
    assert [item.coefficient for item in targets[Q].parts] == [2.0, -0.5 * 6 / math.sqrt(9)]
    assert [item.label for item in targets[V].parts] == ["one"]
    assert "2·one (r=4), -1·two (r=9)" in str(plan)


def test_weight_zero_drops_the_adapter(tmp_path: Path) -> None:
    one = part(Case().write(tmp_path / "one"))
    two = part(Case({Q: LLAMA[Q]}, seed=1).write(tmp_path / "two"))
    plan = make_plan([one, two], [0, 2])
    assert [target.module for target in plan.targets] == [Q]
    assert plan.rank == 4
    assert plan.weights == (0.0, 2.0)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1], "MRG003 2 adapters"),
        ([1, 2, 3], "but 3 weights"),
        ([1, math.nan], "MRG003 the weight of two is nan"),
        ([-math.inf, 1], "MRG003 the weight of one is -inf"),
        ([1, True], "True"),
        ([1, "2"], "'2'"),
        ([0, -0.0], "every weight is 0"),
    ],
)
def test_bad_weights(tmp_path: Path, weights: list[float], message: str) -> None:
    parts = [part(Case().write(tmp_path / name)) for name in ("one", "two")]
    with pytest.raises(RefError, match=message):
        make_plan(parts, weights)


def test_no_adapters() -> None:
    with pytest.raises(RefError, match="at least one"):
        make_plan([], [])


def test_unknown_method_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(RefError, match="'best'") as caught:
        make_plan([part(Case().write(tmp_path / "one"))], method="best")
    assert "exact" in caught.value.hint


def test_same_adapter_twice_is_a_warning(tmp_path: Path) -> None:
    folder = Case().write(tmp_path / "one")
    plan = make_plan([part(folder, "a"), part(folder, "b")], [1, 2])
    [finding] = plan.findings
    assert (finding.rule, finding.severity) == ("MRG004", Severity.WARNING)
    assert "a and b" in finding.message
    assert "MRG004" in str(plan)


def test_different_bases_are_refused_with_both_names_and_levels(tmp_path: Path) -> None:
    folder = Case().write(tmp_path / "one")
    mine = part(folder, "mine", fingerprint("llama", exact="1", bf16="1"))
    other = part(folder, "other", fingerprint("llama", exact="2", bf16="2"))
    with pytest.raises(IncompatibleError, match=r"MRG001 mine and other .*exact .*bf16 "):
        make_plan([mine, part(folder, "unknown"), other])


def test_a_lossless_cast_of_the_base_is_the_same_base(tmp_path: Path) -> None:
    folder = Case().write(tmp_path / "one")
    wide = part(folder, "wide", fingerprint("llama", exact="32", bf16="same"))
    narrow = part(folder, "narrow", fingerprint("llama", exact="16", bf16="same"))
    make_plan([wide, narrow])
    assert common_base([wide, narrow]) == fingerprint("llama", bf16="same")
    assert common_base([part(folder), narrow]) == narrow.base
    assert common_base([part(folder)]) is None


def test_shapes_that_differ_are_refused(tmp_path: Path) -> None:
    one = part(Case({Q: (48, 32)}).write(tmp_path / "one"))
    two = part(Case({Q: (48, 40)}).write(tmp_path / "two"))
    with pytest.raises(IncompatibleError, match=r"\(48, 32\) in one, but \(48, 40\) in two"):
        make_plan([one, two])


def test_recipes_load_no_torch() -> None:
    code = (
        "import sys, rankloom.recipe.plan, rankloom.composition; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
