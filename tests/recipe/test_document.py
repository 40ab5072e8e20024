"""Recipe files: what they mean, and that every complaint names its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankloom.errors import NotFoundError, RefError
from rankloom.recipe.document import parse_recipe, read_recipe
from rankloom.recipe.rank import Energy
from rankloom.recipe.weights import Filter, Gradient

NATIVE = """\
version: 1
base_model: ./base
adapters:
  - adapter: zh-lang:prod
    parameters: {weight: [0.2, 1]}
  - adapter: ./qa-task
    parameters:
      weight:
        - {filter: mlp, value: 0.5}
        - value: 1
      density: 0.7
merge_method: ties
parameters: {density: 0.5, lambda: 0.9}
output: {rank: 16, dtype: bfloat16}
"""


def test_a_recipe_says_it_all() -> None:
    recipe = parse_recipe(NATIVE, folder=Path("somewhere"))
    assert recipe.refs == ("zh-lang:prod", "./somewhere/qa-task")
    filters = (Filter("mlp", 0.5), Filter(None, 1.0))
    assert recipe.weights == (Gradient((0.2, 1.0)), filters)
    assert recipe.method == "ties"
    assert recipe.parameters == {"density": [0.5, 0.7], "lambda": 0.9}
    assert (recipe.rank, recipe.base, recipe.dtype) == (16, "./somewhere/base", "bfloat16")


def test_folders_are_relative_to_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "recipe.yaml"
    path.parent.mkdir()
    refs = ["name", "./a", "../b", "c/", "/d", "~/e", "acme/name"]
    path.write_text("adapters:\n" + "".join(f"  - adapter: {ref}\n" for ref in refs))
    home = str(path.parent)
    wanted = ("name", f"{home}/a", f"{home}/../b", f"{home}/c", "/d", "~/e", "acme/name")
    assert read_recipe(path).refs == wanted
    with pytest.raises(NotFoundError):
        read_recipe(tmp_path / "no.yaml")


@pytest.mark.parametrize(
    ("rank", "wanted"),
    [
        ("8", 8),
        ("auto", "auto"),
        ("sum", None),
        ("energy=0.9", Energy(0.9)),
        ("{energy: 0.99, max: 64}", Energy(0.99, 64)),
    ],
)
def test_ranks(rank: str, wanted: object) -> None:
    text = f"adapters:\n  - adapter: a\noutput:\n  rank: {rank}\n"
    assert parse_recipe(text).rank == wanted


ONE = "adapters:\n  - adapter: a\n"


@pytest.mark.parametrize(
    ("text", "line", "what", "hint"),
    [
        ("", 1, "nothing stands where keys are expected", "adapters"),
        ("[1]", 1, "stands where keys", "adapters"),
        ("version: 2\n" + ONE, 1, "version 2 is not known", "version 1"),
        (ONE + "merge_methd: ties", 3, "unknown key 'merge_methd'", "perhaps merge_method"),
        (ONE + "    paramters: {}", 3, "unknown key 'paramters'", "perhaps parameters"),
        ("merge_method: exact\nadapters: []", 2, "needs a list of adapters", "- adapter"),
        ("adapters:\n  - adapter: 3", 2, "adapter is 3, not a text", ""),
        (ONE + "merge_method: tie", 3, "no method 'tie'", "perhaps ties"),
        (ONE + "merge_method: ties", 3, "ties needs density", "give density"),
        (ONE + "    parameters: {weight: .nan}", 3, "nan is no weight", "finite"),
        (ONE + "    parameters: {weight: [1, two]}", 3, "'two' is no weight", "finite"),
        (ONE + "    parameters:\n      wight: 1", 4, "no parameter 'wight'", "perhaps weight"),
        (
            ONE + "    parameters:\n      density: 0\nmerge_method: ties",
            4,
            "density is 0",
            "above 0",
        ),
        (
            ONE + "    parameters: {density: 1}\n  - adapter: b\nmerge_method: ties",
            4,
            "b has no density",
            "give it density",
        ),
        (ONE + "parameters:\n  lamda: 1\nmerge_method: ties", 4, "'lamda'", "perhaps lambda"),
        (ONE + "merge_method: slerp\nparameters: {t: 1}", 3, "takes 2 adapters, not 1", ""),
        (ONE + "output:\n  rank: 0", 4, "0 is not a rank", "whole number"),
        (ONE + "output:\n  rnk: 1", 4, "unknown key 'rnk'", "perhaps rank"),
        (ONE + "output:\n  dtype: int4", 4, "'int4' is no dtype", "bfloat16"),
        (ONE + "merge_method: ctm", 3, "ctm needs a rank", "16"),
        (ONE + "combination_type: linear", 3, "all A and all B apart", "merge_method: exact"),
        (ONE + "combination_type: svd", 3, "names none", "output"),
        (ONE + "combination_type: best", 3, "no combination_type 'best'", "cat"),
        (ONE + "combination_type: cat\nmerge_method: exact", 3, "both name a method", ""),
    ],
)
def test_every_complaint_has_its_line(text: str, line: int, what: str, hint: str) -> None:
    with pytest.raises(RefError, match=rf"MRG007 r\.yaml, line {line}: ") as caught:
        parse_recipe(text, "r.yaml")
    assert what in caught.value.message
    assert hint in caught.value.hint


def test_pefts_names_mean_what_peft_computes_on_deltas() -> None:
    recipe = parse_recipe(ONE + "combination_type: cat")
    assert (recipe.method, recipe.rank) == ("exact", None)
    text = ONE + "combination_type: ties_svd\nparameters: {density: 0.5}\noutput: {rank: 8}"
    recipe = parse_recipe(text)
    assert (recipe.method, recipe.rank) == ("ties", 8)
    assert recipe.parameters["sign_election"] == "unweighted"
    assert recipe.parameters["divide_by"] == "count"


MERGEKIT = """\
models:
  - model: org/base
  - model: org/base+./zh
    parameters: {weight: 0.5, density: 0.6}
  - model: org/base+qa
    parameters:
      weight: [0, 1]
      density: 0.4
merge_method: ties
base_model: org/base
parameters: {normalize: false, int8_mask: true, lambda: 1.1}
dtype: bfloat16
tokenizer_source: base
"""


def test_mergekits_yaml_is_a_recipe() -> None:
    recipe = parse_recipe(MERGEKIT)
    assert recipe.refs == ("./zh", "qa")
    assert recipe.weights == (0.5, Gradient((0.0, 1.0)))
    assert recipe.parameters == {"density": [0.6, 0.4], "divide_by": "none", "lambda": 1.1}
    assert (recipe.base, recipe.dtype, recipe.is_foreign) == ("org/base", "bfloat16", True)


def test_mergekits_linear_normalizes_by_itself() -> None:
    recipe = parse_recipe("models:\n  - model: b+a\nmerge_method: linear\n")
    assert (recipe.method, recipe.parameters) == ("linear", {})


def test_slerp_by_layer_is_nuslerp_with_weights() -> None:
    text = """\
models: [{model: b+one}, {model: b+two}]
merge_method: slerp
base_model: b+two
parameters:
  t:
    - {filter: mlp, value: [0, 0.25]}
    - {value: 0.5}
"""
    recipe = parse_recipe(text)
    assert recipe.method == "nuslerp"
    assert recipe.refs == ("two", "one")  # t = 0 is the base_model
    first, second = recipe.weights
    assert second == (Filter("mlp", Gradient((0.0, 0.25))), Filter(None, 0.5))
    assert first == (Filter("mlp", Gradient((1.0, 0.75))), Filter(None, 0.5))


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("merge_method: ties\nslices: []", 2, "slices"),
        ("models: []\nmerge_method: ties", 1, "no list of models"),
        ("models:\n  - model: b+a+c\nmerge_method: ties", 2, "not BASE\\+ADAPTER"),
        ("models:\n  - model: b+a\n  - model: c+d\nmerge_method: ties", 3, "another base"),
        ("models:\n  - model: b+a\n  - model: full\nmerge_method: ties", 3, "another base"),
        ("models:\n  - model: b+a\n  - model: b\nmerge_method: linear", 3, "without an adapter"),
        ("models:\n  - model: b+a\nmerge_method: nearswap", 3, "no method 'nearswap'"),
        ("models:\n  - model: b+a\nmerge_method: exact\ntokenizer_source: union", 4, "tokenizer"),
        (
            "models:\n  - model: b+a\nmerge_method: dare_ties\nparameters:\n  rescale: false",
            5,
            "rescale can only be true",
        ),
        ("models:\n  - model: b+a\nmerge_method: exact\nchat_template: x", 4, "chat_template"),
        ("models:\n  - model: b+a\nmerge_method: exact\ndtyp: x", 4, "unknown key"),
    ],
)
def test_what_means_another_thing_is_refused(text: str, line: int, what: str) -> None:
    with pytest.raises(RefError, match=rf"line {line}: .*{what}"):
        parse_recipe(text)
