"""An engine's file says something about every feature, and nothing that is not understood."""

from __future__ import annotations

import re

import pytest

from rankloom.errors import RefError, UnknownEngineError
from rankloom.validate.engines import Verdict, choose, engines
from rankloom.validate.engines.loading import EngineFileError, files, parse

VLLM = next(file for file in files() if file.name.startswith("vllm")).read_text("utf-8")
FIRST = '[[cells]]\nfeatures = ["rank"]'

BROKEN = {
    "no TOML": ("schema = 1", "schema = ", "Invalid value"),
    "another schema": ("schema = 1", "schema = 2", "schema is 2, not 1"),
    "unknown key": ("schema = 1", "schema = 1\ncolour = 3", r"unknown keys: \['colour'\]"),
    "missing key": ('title = "vLLM"\n', "", r"missing keys: \['title'\]"),
    "no text": ('title = "vLLM"', "title = 7", "title is 7, no text"),
    "rank that is none": ("default = 16", "default = 0", "default is 0, no whole number"),
    "rank in words": ("default = 16", 'default = "16"', "default is '16', no whole number"),
    "settings of texts": ("settings = [1,", 'settings = ["a",', "settings is .*, no list of int"),
    "unknown setting": ("default = 16", "usual = 16", r"unknown keys: \['usual'\]"),
    "unknown verdict": (
        'verdict = "reject"',
        'verdict = "maybe"',
        "cell 1: 'maybe' is not a valid",
    ),
    "no verdict": ('verdict = "reject"\n', "", "cell 1: verdict is None"),
    "unknown feature": (FIRST, FIRST.replace("rank", "colour"), "there is no feature 'colour'"),
    "feature without a cell": ('["fields"]', '["rank"]', "cell 2: rank has two cells"),
    "left-out feature": ('features = ["alora"]', 'features = ["qalora"]', "qalora has two cells"),
    "no reason": (
        "reason = \"'LoRA rank … is greater than max_lora_rank'\"\n",
        "",
        "reason is None",
    ),
    "no source": (re.search(r'source = "vllm.*\n', VLLM)[0], "", r"missing keys: \['source'\]"),  # type: ignore[index]
    "no features": (FIRST, "[[cells]]\nfeatures = []", "features is no list"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_the_place(name: str) -> None:
    old, new, message = BROKEN[name]
    assert old in VLLM
    with pytest.raises(EngineFileError, match=message) as caught:
        parse(VLLM.replace(old, new, 1), "vllm-0.33.toml")
    assert str(caught.value).startswith("vllm-0.33.toml: ")


def test_a_feature_that_a_file_forgets_is_named() -> None:
    cell = re.search(r'\[\[cells\]\]\nfeatures = \["alora"\].*?\n\n', VLLM, re.DOTALL)
    assert cell
    with pytest.raises(EngineFileError, match=r"no cell for \['alora'\]"):
        parse(VLLM.replace(cell[0], ""), "file")


def test_every_cell_has_its_source_and_reason() -> None:
    assert len(engines()) == 8
    for engine in engines():
        assert engine.url.startswith("https://github.com/")
        for cell in engine.cells.values():
            assert cell.source
            assert cell.reason or cell.verdict is Verdict.ACCEPT


@pytest.mark.parametrize("text", ["vllm", "vllm==0.33", "vllm==0.33.0", "vllm==0"])
def test_a_version_is_named_by_its_beginning(text: str) -> None:
    chosen = choose(text)
    assert (chosen.name, chosen.max_rank) == ("vLLM 0.33.0", 16)


@pytest.mark.parametrize("version", ["0.3", "0.33.1", "0.34", "33"])
def test_another_version_is_not_known(version: str) -> None:
    with pytest.raises(UnknownEngineError, match=f"what vllm {version} does") as caught:
        choose(f"vllm=={version}")
    assert caught.value.exit_code == 3
    assert "0.33.0" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "limit"),
    [("vllm,max_lora_rank=64", 64), ("sglang,max_lora_rank=7", 7), ("llama.cpp", None)],
)
def test_an_engine_is_started_for_a_rank(text: str, limit: int | None) -> None:
    assert choose(text).max_rank == limit


@pytest.mark.parametrize(
    "text", ["", "vlm", "vllm=0.33", "vllm==", "vllm,max_lora_rank=24", "sglang,max_lora_rank=0"]
)
def test_what_is_no_engine_is_refused(text: str) -> None:
    with pytest.raises(RefError) as caught:
        choose(text)
    assert caught.value.hint
