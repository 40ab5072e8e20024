"""Every method from folders to what is saved, applied and put on a live model."""

from __future__ import annotations

import inspect
import json
import math
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from lowrank_cases import LLAMA, Case, deltas, part, read_checkpoint, total, write_base
from rankloom.compose.core.methods import RULES, SPACES
from rankloom.compose.factors.methods import METHODS as GRAM
from rankloom.compose.tiles.methods import METHODS as TILES
from rankloom.composition import Composition, compose
from rankloom.errors import IncompatibleError, RefError, UnsupportedAdapterError
from rankloom.recipe import locking
from rankloom.recipe.methods import CORE, METHODS, Method
from rankloom.recipe.parameters import REQUIRED
from rankloom_kernels import masks

if TYPE_CHECKING:
    from pathlib import Path

Q = "model.layers.0.self_attn.q_proj"
V = "model.layers.1.self_attn.v_proj"
pytestmark = pytest.mark.filterwarnings("ignore:BASE001", "ignore:MRG011")

NEEDED = {"t": 0.3, "density": 0.6}


def needed(method: Method) -> dict[str, Any]:
    """Values of the parameters that have no default."""
    return {
        name: NEEDED[name] for name, known in method.parameters.items() if known.default is REQUIRED
    }


def two(folder: Path, *, same_rank: bool = False) -> list[Path]:
    """Two adapters of different ranks; the second leaves two targets alone."""
    some = {name: shape for name, shape in LLAMA.items() if "down_proj" not in name}
    one, rank = Case(rank=4, alpha=8).write(folder / "one"), 4 if same_rank else 3
    return [one, Case(some, rank=rank, alpha=2, rslora=True, seed=1).write(folder / "two")]


def composed(
    folder: Path,
    method: str,
    weights: list[Any] | None = None,
    *,
    parameters: dict[str, Any] | None = None,
    rank: object = None,
) -> Composition:
    apart = METHODS[method].engine == "apart" if method in METHODS else False
    parts = [part(path) for path in two(folder, same_rank=apart)]
    return compose(parts, weights, method=method, parameters=parameters, rank=rank)


def test_the_table_is_what_the_engines_take() -> None:
    """Names, defaults and needed parameters are those of the functions that compute."""
    apart = {name for name, method in METHODS.items() if method.engine == "apart"}
    assert apart == {"peft_linear"}
    for name, method in METHODS.items():
        if name in apart:
            assert not method.parameters
            continue
        table = {
            f"{key}_" if key == "lambda" else key: known.default
            for key, known in method.parameters.items()
            if key not in {"seed", "pico"}
        }
        found: dict[str, Any] = {}
        if name in CORE:
            space, rule = CORE[name]
            found = parameters_of(SPACES[space], 3) | parameters_of(RULES[rule], 0)
        else:
            found = parameters_of((GRAM | TILES)[name], 2)
        assert ("keys" in found) == ("seed" in method.parameters) == method.is_random, name
        assert ("rank" in found) == method.needs_rank, name
        unseen = {"keys", "rank"} | ({"lambda_"} if name == "pico" else set())
        assert table == {key: value for key, value in found.items() if key not in unseen}, name
    assert set(METHODS) == GRAM.keys() | TILES.keys() | CORE.keys() | apart


def parameters_of(function: Any, skip: int) -> dict[str, Any]:  # noqa: ANN401
    known = list(inspect.signature(function).parameters.values())[skip:]
    empty = inspect.Parameter.empty
    return {one.name: REQUIRED if one.default is empty else one.default for one in known}


def test_locks_name_the_scheme_of_random_numbers() -> None:
    assert f"{masks.SCHEME}/{masks.VERSION}" == locking.RANDOM


# --- methods that find coefficients --------------------------------------------------------------


def slerp(x: torch.Tensor, y: torch.Tensor, t: float) -> torch.Tensor:
    angle = torch.acos((x * y).sum() / (x.norm() * y.norm()))
    return (torch.sin((1 - t) * angle) * x + torch.sin(t * angle) * y) / torch.sin(angle)


def model_stock(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    cosine = (x * y).sum() / (x.norm() * y.norm())
    return 2 * cosine / (1 + cosine) * (x + y) / 2


DENSE = {
    "linear": ([2, 1], {}, lambda x, y: (2 * x + y) / 3),
    "task_arithmetic": ([2, -1], {"lambda": 0.5}, lambda x, y: x - 0.5 * y),
    "slerp": ([1, 1], {"t": 0.3}, lambda x, y: slerp(x, y, 0.3)),
    "nuslerp": ([3, 1], {}, lambda x, y: slerp(x, y, 0.25)),
    "model_stock": ([1, 1], {}, model_stock),
    "norm_balanced": (
        [1, 1],
        {},
        lambda x, y: (x / x.norm() + y / y.norm()) * (x.norm() + y.norm()) / 2,
    ),
}


@pytest.mark.parametrize("method", DENSE)
def test_saved_is_what_the_dense_definition_says(tmp_path: Path, method: str) -> None:
    weights, parameters, dense = DENSE[method]
    composition = composed(tmp_path, method, weights, parameters=parameters)
    found = deltas(composition.save(tmp_path / "out"))
    one, other = (deltas(tmp_path / name) for name in ("one", "two"))
    for module in other:
        expected = dense(one[module], other[module])
        # Factors are rounded to float32 once, and a sum of 7 products is at most some larger.
        assert (found[module] - expected).abs().max() <= 1e-6 * expected.abs().max(), module
    assert not composition.errors


def test_what_only_one_adapter_changes_meets_a_delta_of_0(tmp_path: Path) -> None:
    found = deltas(composed(tmp_path, "slerp", parameters={"t": 0.25}).save(tmp_path / "out"))
    one = deltas(tmp_path / "one")
    down = "model.layers.0.mlp.down_proj"
    torch.testing.assert_close(found[down], 0.75 * one[down], rtol=1e-6, atol=1e-9)


def test_a_coefficient_of_0_costs_no_rank(tmp_path: Path) -> None:
    composition = composed(tmp_path, "slerp", parameters={"t": 0})
    assert {change.formula.rank for change in composition.changes} == {4}


# --- rank ----------------------------------------------------------------------------------------


def test_rank_gives_the_optimum_and_says_what_is_lost(tmp_path: Path) -> None:
    composition = composed(tmp_path, "exact", [1, 0.5], rank=4)
    found = deltas(composition.save(tmp_path / "out"))
    expected = total(deltas(tmp_path / "one"), deltas(tmp_path / "two", 0.5))
    losses = {loss.name.removesuffix(".weight"): loss for loss in composition.errors.targets}
    assert losses.keys() == expected.keys()
    squares, missing = 0.0, 0.0
    for module, delta in expected.items():
        values = torch.linalg.svdvals(delta)
        lost = float(values[4:].norm())
        # float64 on both sides; the saved factors were rounded to float32.
        assert losses[module].missing == pytest.approx(lost, abs=1e-12)
        assert float((found[module] - delta).norm()) == pytest.approx(lost, abs=1e-6)
        squares += float(delta.square().sum())
        missing += lost**2
    all_of_them = composition.errors.total
    assert all_of_them.error == pytest.approx(math.sqrt(missing / squares))
    assert f"rank 4 keeps {100 * all_of_them.energy:.4g} %" in str(composition.errors)
    assert "the optimum" in str(composition.errors)
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 4


def test_energy_and_auto_choose_a_rank_for_each_target(tmp_path: Path) -> None:
    composition = composed(tmp_path, "exact", rank="energy=0.8,max=5")
    assert all(loss.energy >= 0.8 or loss.rank == 5 for loss in composition.errors.targets)
    parts = [part(tmp_path / name) for name in ("one", "one")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doubled = compose(parts, rank="auto")
    # The same adapter twice needs no more columns than once.
    assert {loss.rank for loss in doubled.errors.targets} == {4}
    assert doubled.errors.total.error <= 2.0**-24
    assert doubled.lock.to_json()["rank"] == "auto"


@pytest.mark.parametrize("rank", [0, -1, 1.5, True, "wide", "energy=2", "energy=x"])
def test_what_is_no_rank(tmp_path: Path, rank: object) -> None:
    with pytest.raises(RefError):
        composed(tmp_path, "exact", rank=rank)


# --- every method, everywhere --------------------------------------------------------------------


def rank_for(method: Method) -> int | None:
    return 3 if method.needs_rank else None


@pytest.mark.parametrize("name", METHODS)
def test_applied_saved_and_live_are_one_thing(tmp_path: Path, name: str) -> None:
    method = METHODS[name]
    rank = rank_for(method)
    composition = composed(tmp_path, name, parameters=needed(method), rank=rank)
    base = write_base(tmp_path / "base", torch.float64)
    composition.apply_to(tmp_path / "base", tmp_path / "merged")
    merged = read_checkpoint(tmp_path / "merged")
    added = {key: (merged[key] - base[key]) for key in base if key.endswith("proj.weight")}
    model = live(base)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with composition.apply(model):
        for key, value in model.state_dict().items():
            torch.testing.assert_close(value, merged[key], rtol=0, atol=0)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    if method.engine == "elements":
        with pytest.raises(UnsupportedAdapterError, match=f"{name} .*rank="):
            composition.save(tmp_path / "no")
        composition = composed(tmp_path / "again", name, parameters=needed(method), rank=16)
        assert composition.errors.total.error < 1
    saved = deltas(composition.save(tmp_path / "out"))
    for key, delta in added.items():
        apart = float((saved[key.removesuffix(".weight")] - delta).norm())
        error = apart / (float(delta.norm()) or 1.0)  # model_stock leaves nothing of one alone
        losses = {loss.name: loss.error for loss in composition.errors.targets}
        # Factors in float32 beside sums in float64.
        assert error == pytest.approx(losses.get(key, 0.0), abs=2e-6), key


def live(tensors: dict[str, torch.Tensor]) -> nn.Module:
    """A model that has these parameters, and nothing else."""
    root = nn.Module()
    for name, value in tensors.items():
        if not value.is_floating_point():
            continue
        *path, leaf = name.split(".")
        module = root
        for word in path:
            if word not in dict(module.named_children()):
                module.add_module(word, nn.Module())
            module = module.get_submodule(word)
        module.register_parameter(leaf, nn.Parameter(value.clone()))
    return root


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_lock_pins_it_all_and_gives_it_again(tmp_path: Path, name: str) -> None:
    method = METHODS[name]
    rank = 3 if method.engine in {"elements", "core"} else None
    composition = composed(tmp_path, name, parameters=needed(method), rank=rank)
    lock = composition.lock.to_json()
    assert lock["algorithm"] == f"{name}/1"
    assert lock["parameters"].keys() == method.parameters.keys()
    assert ("random" in lock) == method.is_random
    assert lock.get("rank") == (rank and str(rank))
    again = compose(list(composition.parts), **locking.arguments(composition.lock))
    assert again.lock == composition.lock
    one, other = composition.save(tmp_path / "first"), again.save(tmp_path / "second")
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes()


def test_another_seed_drops_others(tmp_path: Path) -> None:
    def saved(seed: int) -> dict[str, torch.Tensor]:
        folder = tmp_path / str(seed)
        values = {"density": 0.5, "seed": seed}
        return deltas(composed(folder, "core_dare", parameters=values).save(folder / "out"))

    one, other = saved(0), saved(1)
    assert any((one[module] - other[module]).abs().max() > 1e-4 for module in one)


# --- weights -------------------------------------------------------------------------------------


def test_gradients_and_filters_are_numbers_for_each_target(tmp_path: Path) -> None:
    weights = [[0, 2], [{"filter": "q_proj", "value": 0.5}, {"value": -1}]]
    composition = composed(tmp_path, "exact", weights)
    found = deltas(composition.save(tmp_path / "out"))
    one, other = (deltas(tmp_path / name) for name in ("one", "two"))
    for module in other:
        mine = 0 if ".layers.0." in module else 2
        theirs = 0.5 if "q_proj" in module else -1
        expected = mine * one[module] + theirs * other[module]
        assert (found[module] - expected).abs().max() <= 1e-6 * expected.abs().max()
    lock = composition.lock.to_json()
    assert lock["parts"][0]["weight"]["targets"][f"{V}.weight"] == 2.0
    assert f"{Q}.weight" not in lock["parts"][0]["weight"]["targets"]
    again = compose(list(composition.parts), **locking.arguments(composition.lock))
    assert again.lock == composition.lock
    assert "[0, 2]·one" in str(composition.plan)


def test_the_base_says_how_many_layers_there_are(tmp_path: Path) -> None:
    parts = [part(path) for path in two(tmp_path)]
    names = ["layers.0.x.weight", "layers.4.x.weight"]
    composition = compose(parts, [[0, 1], 1], base_names=names)
    weights = {target.name: target.weights for target in composition.plan.targets}
    assert weights[f"{V}.weight"] == (0.25, 1.0)


def test_a_filter_that_holds_for_nothing_is_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"MRG006 the filter 'mpl' of one"):
        composed(tmp_path, "exact", [[{"filter": "mpl", "value": 0.5}, {"value": 1}], 1])


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("slerp", {}, "needs t"),
        ("ties", {}, "needs density"),
        ("ties", {"density": 0}, "density is 0"),
        ("ties", {"density": [0.5]}, "2 adapters, but 1 values of density"),
        ("ties", {"density": 0.5, "vote": "loud"}, "vote is 'loud'"),
        ("ties", {"denisty": 0.5}, "no parameter 'denisty'"),
        ("exact", {"lambda": 1}, "no parameter 'lambda'"),
        ("linear", {"normalize": 1}, "normalize is 1"),
        ("slerp", {"t": math.nan}, "t is nan"),
        ("karcher", {"max_iter": 0}, "max_iter is 0"),
        ("sce", {"select_topk": True}, "select_topk is True"),
    ],
)
def test_parameters_that_cannot_be(
    tmp_path: Path, method: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(RefError, match=message):
        composed(tmp_path, method, parameters=parameters)


def test_hints_name_what_was_perhaps_meant(tmp_path: Path) -> None:
    with pytest.raises(RefError) as caught:
        composed(tmp_path, "ties", parameters={"denisty": 0.5})
    assert "perhaps density" in caught.value.hint
    with pytest.raises(RefError) as caught:
        composed(tmp_path / "b", "tie")
    assert "perhaps ties" in caught.value.hint
    with pytest.raises(RefError, match="ctm needs a rank"):
        composed(tmp_path / "c", "ctm")
    with pytest.raises(RefError, match="cannot choose a rank by energy=0"):
        composed(tmp_path / "d", "magnitude_prune", rank="energy=0.9", parameters={"density": 1})
    with pytest.raises(RefError, match="takes 2 adapters, not 1"):
        compose([part(tmp_path / "b/one")], method="nuslerp")


def test_two_spellings_of_one_parameter_meet_in_a_sum_only(tmp_path: Path) -> None:
    one = part(Case({Q: LLAMA[Q]}).write(tmp_path / "one"))
    bare = Q.removeprefix("model.")
    other = part(Case({bare: LLAMA[Q]}, seed=1).write(tmp_path / "two"))
    compose([one, other])
    with pytest.raises(IncompatibleError, match="one parameter under two names"):
        compose([one, other], method="nuslerp")


def test_a_tensor_of_many_tiles_is_the_same_sum(tmp_path: Path) -> None:
    """What is computed by rows, applied some rows at a time, beside factors of full rank."""
    shapes = {Q: (2048, 1030)}
    parts = [part(Case(shapes, seed=n).write(tmp_path / str(n))) for n in range(2)]
    base = write_base(tmp_path / "base", torch.float64, shapes=shapes)
    # With density 1 and no division nothing is elected away of one adapter alone.
    composition = compose(parts[:1], method="magnitude_prune", parameters={"density": 1})
    composition.apply_to(tmp_path / "base", tmp_path / "merged")
    found = read_checkpoint(tmp_path / "merged")[f"{Q}.weight"] - base[f"{Q}.weight"]
    expected = deltas(tmp_path / "0")[Q]
    # Elements are float32 of factors with 24 bits.
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
