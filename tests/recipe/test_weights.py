from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom.errors import RefError
from rankloom.recipe.layer_swap import layer_swap
from rankloom.recipe.place import Place, place_of
from rankloom.recipe.weights import (
    Gradient,
    depth_of,
    depths,
    read_weight,
    resolve,
    unused_filters,
)

MLP = "model.layers.3.mlp.up_proj.weight"
Q = "model.layers.3.self_attn.q_proj.weight"
HEAD = "lm_head.weight"


def test_a_number_is_for_everything() -> None:
    for target, layer in ((MLP, 3), (HEAD, None)):
        assert resolve(read_weight(-0.5), target, layer, 4) == -0.5
    assert resolve(read_weight(2), MLP, 3, 4) == 2.0


def test_a_gradient_is_linear_between_its_numbers() -> None:
    weight = read_weight([0, 1, 0.5])
    found = [resolve(weight, MLP, layer, 5) for layer in range(5)]
    assert found == [0.0, 0.5, 1.0, 0.75, 0.5]
    assert resolve(weight, MLP, 0, 1) == 0.0


@given(
    values=st.lists(st.floats(-5, 5), min_size=1, max_size=9),
    layers=st.integers(1, 40),
    data=st.data(),
)
def test_a_gradient_is_mergekits(values: list[float], layers: int, data: st.DataObject) -> None:
    layer = data.draw(st.integers(0, layers - 1))
    t = layer / (layers - 1) if layers > 1 else 0
    scaled = t * (len(values) - 1)
    low = int(scaled)
    high = min(len(values) - 1, low + 1)
    expected = (1 - (scaled - low)) * values[low] + (scaled - low) * values[high]
    # Its place between two numbers is a float there, and a fraction here.
    assert Gradient(tuple(values)).at(layer, layers) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=70))
def test_one_number_for_each_layer_is_that_number(values: list[float]) -> None:
    gradient = Gradient(tuple(values))
    assert [gradient.at(layer, len(values)) for layer in range(len(values))] == values


def test_the_first_filter_that_holds_decides() -> None:
    weight = read_weight(
        [
            {"filter": "up_proj", "value": 0.1},
            {"filter": "mlp", "value": [0.2, 0.6]},
            {"value": 0.5},
        ]
    )
    assert resolve(weight, MLP, 3, 4) == 0.1
    assert resolve(weight, MLP.replace("up", "down"), 3, 4) == 0.6
    assert resolve(weight, Q, 3, 4) == 0.5
    assert resolve(weight, HEAD, None, 4) == 0.5
    assert resolve(read_weight({"filter": "*", "value": 3}), Q, 3, 4) == 3


def test_no_filter_that_holds_is_an_error_and_no_guess() -> None:
    with pytest.raises(RefError, match=f"holds for {Q}"):
        resolve(read_weight([{"filter": "mlp", "value": 1}]), Q, 3, 4)


def test_a_filter_that_decides_nothing_is_told() -> None:
    weight = read_weight(
        [{"filter": "mlp", "value": 1}, {"filter": "mpl", "value": 1}, {"value": 0}]
    )
    assert unused_filters(weight, [MLP, Q]) == ("mpl",)
    assert unused_filters(weight, [MLP]) == ("mpl",)  # a default may be idle
    assert unused_filters(read_weight(1), [MLP]) == ()


def test_outside_of_the_layers_a_gradient_has_to_have_equal_ends() -> None:
    assert resolve(read_weight([1, 0, 1]), HEAD, None, 4) == 1
    with pytest.raises(RefError, match=r"lm_head.weight lies in no layer.* from 0 to 1"):
        resolve(read_weight([0, 1]), HEAD, None, 4)


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_that_the_base_does_not_have(layer: int) -> None:
    with pytest.raises(RefError, match=f"layer {layer}, but the base has 4"):
        resolve(read_weight([0, 1]), Q, layer, 4)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "1",
        math.nan,
        [],
        [1, math.inf],
        [1, "2"],
        [[1]],
        {},
        {"filter": "mlp"},
        {"filter": 3, "value": 1},
        {"filter": "mlp", "value": 1, "weight": 2},
        {"value": {"value": 1}},
        [{"value": 1}, 2],
        [{"value": [{"value": 1}]}],
    ],
)
def test_values_that_are_no_weight(value: object) -> None:
    with pytest.raises(RefError, match="MRG003"):
        read_weight(value)


def test_weights_by_target_are_0_where_there_is_none() -> None:
    weight = read_weight({"targets": {Q: 0.5}})
    assert resolve(weight, Q, 3, 4) == 0.5
    assert resolve(weight, MLP, 3, 4) == 0.0
    assert read_weight(weight) is weight


def test_layers_are_counted_in_the_base_whatever_its_prefix() -> None:
    targets = depths([MLP, Q, HEAD])
    assert targets == {"model.layers": 4}
    base = depths(["layers.0.x", "layers.11.x", "norm.weight"])
    assert depth_of("model.layers", base, targets) == 12
    assert depth_of("model.layers", {}, targets) == 4
    both = depths(["encoder.block.5.x", "decoder.block.2.x"])
    assert depth_of("encoder.block", both, {}) == 6
    # Without a prefix it could be either, so the targets tell.
    assert depth_of("block", both, {"block": 3}) == 3


def test_layer_swap_with_transitions() -> None:
    swap = layer_swap("lang", "task", layers=10, bottom=2, top=1, transition=1)
    assert swap["lang"].values == (1, 1, 0.5, 0, 0, 0, 0, 0, 0.5, 1)
    assert swap["task"].values == (0, 0, 0.5, 1, 1, 1, 1, 1, 0.5, 0)
    slow = layer_swap("lang", "task", layers=8, bottom=1, top=1, transition=3)
    assert slow["lang"].values == (1, 0.75, 0.5, 0.25, 0.25, 0.5, 0.75, 1)
    assert resolve(swap["lang"], HEAD, None, 10) == 1
    assert resolve(swap["task"], HEAD, None, 10) == 0


def test_layer_swap_of_one_end_only() -> None:
    swap = layer_swap("lang", "task", layers=5, bottom=2, top=0, transition=1)
    assert swap["lang"].values == (1, 1, 0.5, 0, 0)
    swap = layer_swap("lang", "task", layers=5, bottom=0, top=1, transition=0)
    assert swap["lang"].values == (0, 0, 0, 0, 1)
    with pytest.raises(RefError, match="no layer"):
        resolve(swap["lang"], HEAD, None, 5)


@given(
    layers=st.integers(1, 60), bottom=st.integers(0, 9), top=st.integers(0, 9), t=st.integers(0, 4)
)
def test_layer_swap_is_a_share_of_each_layer(layers: int, bottom: int, top: int, t: int) -> None:
    needed = (bottom + t if bottom else 0) + (top + t if top else 0)
    if needed > layers:
        with pytest.raises(RefError, match="MRG003"):
            layer_swap("l", "t", layers=layers, bottom=bottom, top=top, transition=t)
        return
    swap = layer_swap("l", "t", layers=layers, bottom=bottom, top=top, transition=t)
    pairs = list(zip(swap["l"].values, swap["t"].values, strict=True))
    assert len(pairs) == layers
    assert all(one + two == 1 and min(one, two) >= 0 for one, two in pairs)
    assert sum(one == 1 for one, _ in pairs) == bottom + top
    assert sum(0 < one < 1 for one, _ in pairs) == t * (bool(bottom) + bool(top))


@pytest.mark.parametrize("change", [{"task": "lang"}, {"layers": 0}, {"bottom": -1}, {"top": -1}])
def test_layer_swaps_that_are_none(change: dict[str, object]) -> None:
    arguments = {"language": "lang", "task": "task", "layers": 9, "bottom": 1, "top": 1, **change}
    with pytest.raises(RefError, match="MRG003"):
        layer_swap(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (Q, Place("model.layers", 3, "self_attn.q_proj")),
        (HEAD, Place("", None, "lm_head")),
        ("encoder.block.0.layer.1.DenseReluDense.wi.weight",
         Place("encoder.block", 0, "layer.*.DenseReluDense.wi")),
        ("model.layers.7.mlp.experts.12.w1.weight",
         Place("model.layers", 7, "mlp.experts.*.w1")),
        ("2.weight", Place("", 2, "")),
        ("h.11.attn.c_attn.bias", Place("h", 11, "attn.c_attn.bias")),
    ],
)  # fmt: skip
def test_places(name: str, place: Place) -> None:
    assert place_of(name) == place
