"""Every class of change on checkpoints, against its definition in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from change_cases import base, entries, random, target
from lowrank_cases import read_checkpoint
from parcels import InParcels
from peft_cases import check
from rankloom.adapter.change import Computed, ExpertLowRank, LowRank, Replacement, Rows
from rankloom.apply import checkpoint, lanes, workers
from rankloom.apply.checkpoint import apply_to_checkpoint
from rankloom.base.reader import read
from rankloom.change.kinds import FORMULAS
from rankloom.errors import AdapterError, IncompatibleError, UnsupportedAdapterError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rankloom.change.formula import TargetChange

pytestmark = pytest.mark.filterwarnings("ignore:BASE001:rankloom.errors.RankloomWarning")
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
State = dict[str, torch.Tensor]


WAYS = {
    "small tiles": lambda: lanes.Tiles(600),  # a few rows, so that seams are seen
    "parcels": lambda: lanes.Tiles(4 << 20),  # what other machines get of an adapter
    # Two tiles under way, as with a GPU: what crosses to where it is changed and back is a copy.
    "a device": lambda: lanes.Tiles.through(torch.device("cpu"), 600),
}


@pytest.fixture(autouse=True, params=WAYS)
def _tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run everything in each way."""
    monkeypatch.setattr(workers, "Tiles", WAYS[request.param])
    if request.param == "parcels":
        monkeypatch.setattr(checkpoint, "Threads", lambda _: InParcels())


def applied(tmp_path: Path, before: State, *changes: TargetChange, **options: Any) -> State:  # noqa: ANN401
    folder = base(tmp_path / "base", before)
    apply_to_checkpoint(read(folder), changes, tmp_path / "out", **options)
    return read_checkpoint(tmp_path / "out")


def judge(tmp_path: Path, before: State, exact: State, *changes: TargetChange) -> State:
    found = applied(tmp_path, before, *changes)
    check(found, {**before, **exact}, before)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_factors_of_an_embedding_and_of_a_layer(tmp_path: Path, dtype: torch.dtype) -> None:
    before = {"emb.weight": random(40, 12).to(dtype), "lin.weight": random(14, 12).to(dtype)}
    e = entries(
        tmp_path / "a.safetensors",
        ea=random(3, 40, seed=1),
        eb=random(12, 3, seed=2),
        la=random(4, 12, seed=3),
        lb=random(14, 4, seed=4),
    )
    t = {name: tensor.double() for name, tensor in read_checkpoint(tmp_path).items()}
    exact = {
        "emb.weight": before["emb.weight"].double() + 0.6 * 0.25 * (t["eb"] @ t["ea"]).T,
        "lin.weight": before["lin.weight"].double() - 2 * 0.5 * (t["lb"] @ t["la"]),
    }
    emb = LowRank(e["ea"], e["eb"], 0.25, transposed=True)
    lin = LowRank(e["la"], e["lb"], 0.5)
    changes = target("emb.weight", (0.6, emb)), target("lin.weight", (-2, lin))
    judge(tmp_path, before, exact, *changes)


def experts(a: torch.Tensor, b: torch.Tensor, count: int) -> torch.Tensor:
    """PEFT's own formula: rows of A are expert-major, columns of B rank-major."""
    a = a.double().reshape(count, -1, a.shape[1])
    b = b.double().reshape(b.shape[0], -1, count)
    return torch.einsum("ore,eri->eoi", b, a)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_factors_of_experts(
    tmp_path: Path, dtype: torch.dtype, *, transposed: bool, mixed: bool
) -> None:
    e = entries(tmp_path / "a.safetensors", a=random(15, 10, seed=1), b=random(8, 15, seed=2))
    t = read_checkpoint(tmp_path)
    delta = 0.5 * experts(t["a"], t["b"], 5)
    delta = delta.mT if transposed else delta
    before = {"experts.up": random(*delta.shape).to(dtype)}
    exact = {"experts.up": before["experts.up"].double() - 1.5 * delta}
    terms: list[tuple[float, Any]] = [(-1.5, ExpertLowRank(e["a"], e["b"], 3, 0.5))]
    if mixed:  # float64 instead of products of tiles
        terms.append((1.0, Computed("none", {}, shape=tuple(experts(t["a"], t["b"], 5).shape))))
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(FORMULAS, "none", lambda _t, _o, w: torch.zeros(w.shape).double())
            judge(tmp_path, before, exact, target("experts.up", *terms))
        return
    judge(tmp_path, before, exact, target("experts.up", *terms))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (7,), (9, 11), (3, 5, 4), (6, 2, 3, 3)])
def test_a_replacement_of_any_dimension(
    tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    e = entries(tmp_path / "a.safetensors", r=random(*shape, seed=1))
    r = read_checkpoint(tmp_path)["r"]
    before = {"m.p": random(*shape).to(dtype), "m.q": random(*shape, seed=5).to(dtype)}
    old = before["m.q"].double()
    exact = {"m.p": r.double(), "m.q": old + 0.3 * (r.double() - old)}
    changes = target("m.p", (1, Replacement(e["r"]))), target("m.q", (0.3, Replacement(e["r"])))
    found = judge(tmp_path, before, exact, *changes)
    assert torch.equal(found["m.p"], r.to(dtype))  # to the last bit


def test_what_is_replaced_need_not_be_a_number(tmp_path: Path) -> None:
    e = entries(tmp_path / "a.safetensors", r=random(3, 4), few=random(1, 4))
    t = read_checkpoint(tmp_path)
    before = {"m.p": torch.full((3, 4), torch.inf), "m.q": torch.full((3, 4), 1e38)}
    before["m.q"][2] = torch.nan
    found = applied(
        tmp_path,
        before,
        target("m.p", (1, Replacement(e["r"]))),
        target("m.q", (1, Rows(e["few"], (2,)))),
    )
    assert torch.equal(found["m.p"], t["r"])
    assert torch.equal(found["m.q"][2:], t["few"])
    assert torch.equal(found["m.q"][:2], before["m.q"][:2])


def test_integers_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    e = entries(tmp_path / "a.safetensors", n=torch.tensor(17), half=torch.tensor(0.5))
    before = {"norm.num_batches_tracked": torch.tensor(3), "norm.weight": random(4)}
    change = Replacement(e["n"])
    found = applied(tmp_path / "whole", before, target("norm.num_batches_tracked", (1, change)))
    assert torch.equal(found["norm.num_batches_tracked"], torch.tensor(17))
    for weight, other in [(0.5, change), (1, Replacement(e["half"]))]:
        with pytest.raises(IncompatibleError, match=r"BASE006 .*tracked is .* no part .* filter"):
            applied(
                tmp_path / f"{weight}", before, target("norm.num_batches_tracked", (weight, other))
            )


@pytest.mark.parametrize("count", [10, 49])
def test_parts_that_make_one_put_in_all_to_the_last_bit(tmp_path: Path, count: int) -> None:
    """Summed up, 17 of a counter would be 16.99…, and values another last bit."""
    values = random(4).double() / 3
    e = entries(tmp_path / "a.safetensors", n=torch.tensor(17), w=values)
    before = {"norm.num_batches_tracked": torch.tensor(3), "norm.weight": random(4).double() * 1e9}
    parts = [(1 / count, Replacement(e["n"])) for _ in range(count)]
    others = [(1 / count, Replacement(e["w"])) for _ in range(count)]
    changes = target("norm.num_batches_tracked", *parts), target("norm.weight", *others)
    found = applied(tmp_path, before, *changes)
    assert torch.equal(found["norm.num_batches_tracked"], torch.tensor(17))
    assert torch.equal(found["norm.weight"], values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_in_any_order(tmp_path: Path, dtype: torch.dtype) -> None:
    rows = (31, 2, 17)
    e = entries(tmp_path / "a.safetensors", v=random(3, 12, seed=1))
    v = read_checkpoint(tmp_path)["v"]
    before = {name: random(40, 12, seed=n).to(dtype) for n, name in enumerate(["one.w", "two.w"])}
    one, two = before["one.w"].double().clone(), before["two.w"].double().clone()
    for number, row in enumerate(rows):
        one[row] = v[number].double()
        two[row] -= 0.5 * (v[number].double() - two[row])
    change = Rows(e["v"], rows)
    changes = target("one.w", (1, change)), target("two.w", (-0.5, change))
    found = judge(tmp_path, before, {"one.w": one, "two.w": two}, *changes)
    assert torch.equal(found["one.w"][list(rows)], v.to(dtype))
    others = [row for row in range(40) if row not in rows]
    assert torch.equal(found["two.w"][others], before["two.w"][others])


def scaled(
    tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any], weight: torch.Tensor
) -> torch.Tensor:
    """W′ − W = factor · l ∘ W for each output, as (IA)³ does it."""
    rows = tensors["l"].view(-1, *[1] * (weight.dim() - 1))
    return options["factor"] * rows * weight


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6,), (6, 9), (6, 2, 3), (6, 2, 3, 3)])
def test_what_is_computed_from_the_base(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMULAS, "scaled", scaled)
    e = entries(tmp_path / "a.safetensors", l=random(6, seed=1), m=random(6, seed=2))
    t = read_checkpoint(tmp_path)
    before = {"m.p": random(*shape).to(dtype)}
    w = before["m.p"].double()
    by_row = (0.7 * 3 * t["l"].double() - 2 * t["m"].double()).view(-1, *[1] * (len(shape) - 1))
    one = Computed("scaled", {"l": e["l"]}, {"factor": 3.0}, needs_base=True)
    two = Computed("scaled", {"l": e["m"]}, {"factor": 1.0}, needs_base=True)
    judge(tmp_path, before, {"m.p": w + by_row * w}, target("m.p", (0.7, one), (-2, two)))


def test_a_formula_that_says_it_needs_no_base_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMULAS, "scaled", scaled)
    e = entries(tmp_path / "a.safetensors", l=random(6))
    change = Computed("scaled", {"l": e["l"]}, {"factor": 1.0})
    with pytest.raises(AdapterError, match="NUM001 the scaled change"):
        applied(tmp_path, {"m.p": random(6, 3)}, target("m.p", (1, change)))
    assert not (tmp_path / "out").exists()


def test_a_formula_of_another_shape_or_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMULAS, "flat", lambda _t, _o, weight: torch.zeros(weight.numel()))
    before = {"m.p": random(6, 3)}
    with pytest.raises(IncompatibleError, match=r"BASE002 flat changes \(18,\), .* \(6, 3\)"):
        applied(tmp_path / "1", before, target("m.p", (1, Computed("flat", {}))))
    with pytest.raises(UnsupportedAdapterError, match="no formula for the kind nobody"):
        applied(tmp_path / "2", before, target("m.p", (1, Computed("nobody", {}))))


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_sorts_on_one_tensor_are_rounded_once(
    tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMULAS, "scaled", scaled)
    e = entries(
        tmp_path / "a.safetensors",
        a=random(2, 30, seed=1),
        b=random(12, 2, seed=2),
        l=random(30, seed=3),
        rows=random(2, 12, seed=4),
    )
    t = {name: tensor.double() for name, tensor in read_checkpoint(tmp_path).items()}
    before = {"emb.weight": random(30, 12).to(dtype)}
    w = before["emb.weight"].double()
    replaced = torch.zeros_like(w)
    replaced[[29, 0]] = t["rows"] - w[[29, 0]]
    exact = w + 0.9 * 0.5 * (t["b"] @ t["a"]).T + 1.3 * t["l"][:, None] * w - 0.2 * replaced
    change = target(
        "emb.weight",
        (0.9, LowRank(e["a"], e["b"], 0.5, transposed=True)),
        (-0.2, Rows(e["rows"], (29, 0))),
        (1.3, Computed("scaled", {"l": e["l"]}, {"factor": 1.0}, needs_base=True)),
    )
    judge(tmp_path, before, {"emb.weight": exact}, change)


def test_a_replacement_and_a_delta_of_another_adapter(tmp_path: Path) -> None:
    e = entries(
        tmp_path / "a.safetensors", r=random(9, 5), a=random(2, 5, seed=1), b=random(9, 2, seed=2)
    )
    t = {name: tensor.double() for name, tensor in read_checkpoint(tmp_path).items()}
    before = {"m.weight": random(9, 5, seed=7) * 1e6}
    change = target("m.weight", (1, LowRank(e["a"], e["b"], 1.0)), (1, Replacement(e["r"])))
    # Exact although W is a million times larger: nothing of it is left.
    judge(tmp_path, before, {"m.weight": t["r"] + t["b"] @ t["a"]}, change)


def test_conversion_of_every_sort(tmp_path: Path) -> None:
    e = entries(tmp_path / "a.safetensors", r=random(9, 5), v=random(1, 5))
    t = read_checkpoint(tmp_path)
    before = {"m.p": random(9, 5, seed=3), "m.q": random(9, 5, seed=4), "m.n": torch.arange(3)}
    found = applied(
        tmp_path,
        before,
        target("m.p", (1, Replacement(e["r"]))),
        target("m.q", (1, Rows(e["v"], (8,)))),
        dtype="bfloat16",
    )
    assert torch.equal(found["m.p"], t["r"].bfloat16())
    assert torch.equal(found["m.q"], torch.cat([before["m.q"][:8], t["v"]]).bfloat16())
    assert torch.equal(found["m.n"], before["m.n"])


def test_values_beyond_float16_are_refused(tmp_path: Path) -> None:
    e = entries(tmp_path / "a.safetensors", r=torch.full((3, 4), 1e6))
    with pytest.raises(IncompatibleError, match=r"NUM004 values of m\.p overflow F16"):
        applied(tmp_path, {"m.p": random(3, 4).half()}, target("m.p", (1, Replacement(e["r"]))))


def test_a_shape_that_differs_is_refused(tmp_path: Path) -> None:
    e = entries(tmp_path / "a.safetensors", r=random(9, 5), n=random(3))
    before = {"m.p": random(9, 6), "m.bias": random(9)}
    for name, change in [("m.p", Replacement(e["r"])), ("m.bias", Replacement(e["n"]))]:
        with pytest.raises(IncompatibleError, match=f"BASE002 {name} is"):
            applied(tmp_path / name, before, target(name, (1, change)))


def test_two_adapters_that_replace_meet_under_two_names(tmp_path: Path) -> None:
    e = entries(tmp_path / "a.safetensors", r=random(9, 5), s=random(9, 5, seed=1))
    before = {"m.p": random(9, 5)}
    one, two, same = (Replacement(e[name]) for name in "rsr")
    with pytest.raises(IncompatibleError, match=r"MRG005 two adapters put values .* in m\.p"):
        applied(tmp_path / "1", before, target("m.p", (1, one)), target("model.m.p", (1, two)))
    halves = target("m.p", (0.5, one)), target("model.m.p", (0.5, same))
    found = applied(tmp_path / "2", before, *halves)
    assert torch.equal(found["m.p"], read_checkpoint(tmp_path)["r"])
