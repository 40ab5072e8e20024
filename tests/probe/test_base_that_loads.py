"""Bases as live models: no code of theirs is run, and what is not there is refused, not made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from peft_cases import save_model
from rankloom.apply.live.load import load_model
from rankloom.errors import BackendUnavailableError
from tiny_models import build

if TYPE_CHECKING:
    from collections.abc import Callable

WEIGHTS = "model.safetensors"
CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path(__file__).with_name("ran").touch()


class Config(LlamaConfig):
    model_type = "unheard-of"


class Model(LlamaForCausalLM):
    config_class = Config
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A decoder with a head of its own."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    save_model(build("llama"), tmp_path / "base")
    if shown:
        transformers.logging.enable_progress_bar()
    return tmp_path / "base"


def edit(base: Path, **fields: object) -> None:
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def without(base: Path, *names: str) -> None:
    kept = {k: v for k, v in load_file(base / WEIGHTS).items() if k not in names}
    save_file(kept, base / WEIGHTS, {"format": "pt"})


def test_a_base_is_loaded_as_the_class_that_its_config_names(base: Path) -> None:
    model = load_model(base)
    assert type(model) is transformers.LlamaForCausalLM
    assert not model.training
    saved = load_file(base / WEIGHTS)
    assert all(torch.equal(model.get_parameter(name), saved[name]) for name in saved)


@pytest.mark.parametrize("kind", ["llama", "unheard-of"])
def test_no_code_of_a_base_is_run_nor_asked_about(
    kind: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> str:
        Path(base / "asked").touch()
        return "y"

    monkeypatch.setattr("builtins.input", asked)
    monkeypatch.setenv("HF_MODULES_CACHE", str(base / "modules"))
    (base / "code.py").write_text(CODE)
    named = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    edit(base, model_type=kind, architectures=None, auto_map=named)
    without(base, "lm_head.weight")
    if kind == "llama":  # transformers has its own class for that
        assert type(load_model(base)) is transformers.LlamaModel
    else:
        with pytest.raises(BackendUnavailableError, match="contains custom code"):
            load_model(base)
    assert not (base / "asked").exists()
    assert not list(base.rglob("ran"))


@pytest.mark.parametrize("field", ["attn_implementation", "experts_implementation"])
def test_no_kernel_is_fetched_for_a_base(field: str, base: Path) -> None:
    edit(base, **{field: "acme/fast-kernel"})
    with pytest.raises(BackendUnavailableError, match=f"elsewhere: {field} acme/fast-kernel"):
        load_model(base)


def test_parameters_that_would_be_random_are_refused(base: Path) -> None:
    without(base, "lm_head.weight")
    lacks = "lacks 1 of the parameters of LlamaForCausalLM, .* random: lm_head.weight$"
    with pytest.raises(BackendUnavailableError, match=lacks):
        load_model(base)
    edit(base, architectures=["LlamaForSequenceClassification"])
    with pytest.raises(BackendUnavailableError, match=r"random: score\.weight$"):
        load_model(base)
    edit(base, architectures=["LlamaForCausalLM"], tie_word_embeddings=True)
    model = load_model(base)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def truncated(base: Path) -> None:
    (base / WEIGHTS).write_bytes((base / WEIGHTS).read_bytes()[:100])


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "other sizes": (lambda base: edit(base, hidden_size=8), "cannot load"),
    "a cut file": (truncated, "cannot load"),
    "a class of another kind": (
        lambda base: edit(base, architectures=["logging"]),
        "has no model logging",
    ),
    "no name of a class": (lambda base: edit(base, architectures=[3]), "cannot load"),
    "an unknown function": (lambda base: edit(base, hidden_act="?"), "cannot load"),
    "an unknown dtype": (lambda base: edit(base, dtype="?"), "cannot load"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_whatever_transformers_ends_with_is_one_error(name: str, base: Path) -> None:
    spoil, said = BROKEN[name]
    spoil(base)
    with pytest.raises(BackendUnavailableError, match=said):
        load_model(base)


def test_the_name_of_a_class_need_not_be_in_a_list(base: Path) -> None:
    edit(base, architectures="LlamaForCausalLM")
    assert type(load_model(base)) is transformers.LlamaForCausalLM
