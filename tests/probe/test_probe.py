"""A probe: the adapter's effect, and the answer that was kept at its push, on live models."""

from __future__ import annotations

import copy
import json
import sys
import warnings
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from folders import adapter, factors
from loractl.main import main
from peft_cases import edit_config, randomise, save_model
from rankloom import sdk
from rankloom.adapter.reader import read
from rankloom.errors import AdapterError, BackendUnavailableError, RefError
from rankloom.probe.tokens import choose
from tiny_models import build, randomised

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
WEIGHTS = "adapter_model.safetensors"


def train(model: torch.nn.Module, config: peft.PeftConfig, folder: Path) -> None:
    """Write an adapter of random values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT has opinions about tiny models
        adapted = peft.get_peft_model(model, config)
        randomise(adapted)
        adapted.save_pretrained(folder)
    edit_config(folder, base_model_name_or_path="acme/tiny", auto_mapping=None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder, an encoder without a head, a model of pictures, and adapters for them."""
    root = tmp_path_factory.mktemp("models")
    encoder = transformers.BertModel(transformers.BertConfig(**SIZES))
    made = {
        "llama": build("llama"),
        "bert": randomised(encoder),
        "vit": build("vit"),
        "clip": build("clip"),
    }
    targets = {"llama": ["q_proj", "v_proj"], "bert": ["query"]}
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    for name, model in made.items():
        save_model(copy.deepcopy(model).to(torch.bfloat16), root / name)
        train(
            model,
            peft.LoraConfig(r=4, target_modules=targets.get(name, ["q_proj"])),
            root / f"{name}-adapter",
        )
    if shown:
        transformers.logging.enable_progress_bar()
    return root


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RANKLOOM_HOME", str(tmp_path / "home"))
    for name in ("RANKLOOM_URL", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    yield
    sdk._default.close()


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def probed(name: object, base: Path, code: int = 0) -> dict[str, Any]:
    """Return what ``validate --probe`` says of an adapter."""
    text = run("validate", name, "--against", base, "--probe", "--json", code=code)
    (entry,) = json.loads(text)["adapters"]
    return {
        "checked": {"PRB001", "PRB002"}.intersection(entry["checked"]),
        "found": {f["rule"]: f["message"] for f in entry["findings"]},
        "why": {item["rule"]: item["reason"] for item in entry["not_checked"]},
    }


def changed(source: Path, folder: Path, **factors: float) -> Path:
    """Return a copy of an adapter whose factors A or B are multiplied."""
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    times = {f"lora_{leaf}": number for leaf, number in factors.items()}
    tensors = {
        key: tensor * next((n for leaf, n in times.items() if leaf in key), 1.0)
        for key, tensor in load_file(source / WEIGHTS).items()
    }
    save_file(tensors, folder / WEIGHTS)
    return folder


# --- the effect -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_an_adapter_with_an_effect_passes(name: str, models: Path) -> None:
    found = probed(models / f"{name}-adapter", models / name)
    assert found["checked"] == {"PRB001"}
    assert found["found"] == {}
    assert found["why"]["PRB002"] == "no probe was kept when it was pushed"


def test_the_effect_is_that_of_peft_in_float32(models: Path) -> None:
    """PEFT's forward is the oracle; float32 over two layers: 2⁻¹⁸ of the largest logit."""
    from rankloom.composition import Part
    from rankloom.probe.take import take

    adapter = read(models / "llama-adapter")
    taken = take(Part(adapter, "sha256:0", "a"), models / "llama")
    base = transformers.LlamaForCausalLM.from_pretrained(models / "llama", dtype=torch.float32)
    ids = torch.tensor([taken.tokens])
    with torch.no_grad():
        alone = base.eval()(input_ids=ids).logits[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with_it = peft.PeftModel.from_pretrained(base, models / "llama-adapter")
        adapted = with_it.eval()(input_ids=ids).logits[0]
    limit = float(adapted.abs().max()) * 2**-18
    assert torch.equal(taken.alone.values, alone)
    assert (taken.adapted.values - adapted).abs().max() <= limit
    assert taken.effect == pytest.approx(float((adapted - alone).abs().max()), abs=2 * limit)


def test_an_adapter_without_effect_is_found(models: Path, tmp_path: Path) -> None:
    """B is not zero, but A is: no rule that reads values alone finds it."""
    folder = changed(models / "llama-adapter", tmp_path / "a", A=0.0)
    found = probed(folder, models / "llama", code=1)
    assert found["found"].keys() == {"PRB001"}
    assert "the base's logits are the same, to the bit" in found["found"]["PRB001"]
    assert run("validate", folder, "--against", models / "llama")


def test_answers_that_overflow_are_found(models: Path, tmp_path: Path) -> None:
    folder = changed(models / "llama-adapter", tmp_path / "a", B=3e38)
    found = probed(folder, models / "llama", code=1)
    assert "NaN or infinity with the adapter" in found["found"]["PRB001"]


def test_trained_tokens_are_asked_for(models: Path, tmp_path: Path) -> None:
    """Another token's answer does not change by them, so they come first, special ones too (1)."""
    model = build("llama")
    for token in (1, 3, 38):
        config = peft.TrainableTokensConfig(target_modules=["embed_tokens"], token_indices=[token])
        train(copy.deepcopy(model), config, tmp_path / f"{token}")
        assert probed(tmp_path / f"{token}", models / "llama")["found"] == {}


# --- what was kept at the push --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "what"), [("llama", "logits"), ("bert", "last hidden state")])
def test_the_kept_answer_is_found_again(name: str, what: str, models: Path) -> None:
    run("push", models / f"{name}-adapter", "a", "--base", models / name, "--probe")
    kept = sdk.resolve("a").probe
    assert kept is not None
    assert (kept.what, len(kept.top), len(kept.tokens)) == (what, 8, 16)
    assert kept.effect > kept.limit
    found = probed("a", models / name)
    assert found["checked"] == {"PRB001", "PRB002"}
    assert found["found"] == {}


def test_another_answer_is_found(models: Path, tmp_path: Path) -> None:
    """A probe of the same tokens that was kept of a slightly larger adapter stands beside it."""
    larger = changed(models / "llama-adapter", tmp_path / "larger", B=1.01)
    run("push", models / "llama-adapter", "a", "--base", models / "llama")
    run("push", larger, "b", "--base", models / "llama", "--probe")
    version, other = sdk.resolve("a").version, sdk.resolve("b").probe
    assert other is not None
    sdk._default._keep(version, other)
    found = probed("a", models / "llama", code=1)
    assert found["found"].keys() == {"PRB002"}
    assert "the logits are off by" in found["found"]["PRB002"]
    wider = other.model_copy(update={"top": ((4000, 1.0),)})
    sdk._default._keep(version, wider)
    found = probed("a", models / "llama", code=1)
    assert "of width 40" in found["found"]["PRB002"]


def test_a_float32_copy_answers_the_same(models: Path, tmp_path: Path) -> None:
    run("push", models / "llama-adapter", "a", "--base", models / "llama", "--probe")
    base = transformers.LlamaForCausalLM.from_pretrained(models / "llama", dtype=torch.float32)
    base.save_pretrained(tmp_path / "float32")
    assert probed("a", tmp_path / "float32")["checked"] == {"PRB001", "PRB002"}


def test_tokens_that_the_base_does_not_have_are_no_crash(models: Path) -> None:
    run("push", models / "llama-adapter", "a", "--base", models / "llama", "--probe")
    version, kept = sdk.resolve("a").version, sdk.resolve("a").probe
    assert kept is not None
    sdk._default._keep(version, kept.model_copy(update={"tokens": (3, 4000)}))
    assert "tokens alone" in probed("a", models / "llama", code=3)["why"]["PRB002"]


def test_an_effect_below_the_tolerance_is_not_compared(models: Path, tmp_path: Path) -> None:
    small = changed(models / "llama-adapter", tmp_path / "small", B=3e-6)
    run("push", small, "a", "--base", models / "llama", "--probe")
    found = probed("a", models / "llama")
    assert found["checked"] == {"PRB001"}
    assert "less than rounding may" in found["why"]["PRB002"]


def test_remarks_leave_the_probe_in_place(models: Path) -> None:
    run("push", models / "llama-adapter", "a", "--base", models / "llama", "--probe")
    kept = sdk.resolve("a").probe
    run("remark", "a", "--label", "task=qa")
    assert sdk.resolve("a").probe == kept
    run("push", models / "llama-adapter", "a", "--base", models / "llama", "--probe")
    assert sdk.resolve("a").version.labels == {"task": "qa"}
    run("push", models / "llama-adapter", "a", "--base", models / "llama")
    assert sdk.resolve("a").probe == kept


def test_an_adapter_without_effect_is_not_pushed_with_a_probe(models: Path, tmp_path: Path) -> None:
    folder = changed(models / "llama-adapter", tmp_path / "a", A=0.0)
    with pytest.raises(AdapterError, match="PRB001") as caught:
        sdk.push(folder, "a", base=models / "llama", probe=True)
    assert [found.rule for found in caught.value.findings] == ["PRB001"]
    assert list(sdk.list()) == []


# --- what cannot be asked -------------------------------------------------------------------------


def test_what_cannot_be_run_is_open(models: Path, tmp_path: Path) -> None:
    adapter = models / "llama-adapter"
    assert "not checked: PRB001, PRB002" in run("validate", adapter, "--probe", code=3)
    run("push", adapter, "a", "--base", models / "llama")
    shown = run("validate", "a", "--against", "llama", "--probe", code=3)
    assert "give its folder" in shown
    pictures = probed(models / "vit-adapter", models / "vit", code=3)
    assert "takes pixel_values" in pictures["why"]["PRB001"]
    both = probed(models / "clip-adapter", models / "clip", code=3)
    assert "CLIPModel does not answer to tokens alone" in both["why"]["PRB001"]
    (tmp_path / "bare").mkdir()
    save_file(load_file(models / "llama/model.safetensors"), tmp_path / "bare/model.safetensors")
    bare = probed(adapter, tmp_path / "bare", code=3)
    assert "transformers cannot load" in bare["why"]["PRB001"]
    broken = tmp_path / "broken"
    changed(adapter, broken)
    (broken / WEIGHTS).write_bytes(b"")
    assert "could not be read" in probed(broken, models / "llama", code=1)["why"]["PRB001"]


def test_a_base_that_answers_no_numbers_is_named_and_not_the_adapter(
    models: Path, tmp_path: Path
) -> None:
    base = transformers.LlamaForCausalLM.from_pretrained(models / "llama")
    base.model.norm.weight.data.fill_(torch.nan)
    base.save_pretrained(tmp_path / "nan")
    with pytest.raises(BackendUnavailableError, match=r"the base .*/nan answers NaN"):
        sdk.push(models / "llama-adapter", "a", base=tmp_path / "nan", probe=True)
    found = probed(models / "llama-adapter", tmp_path / "nan", code=3)
    assert "/nan answers NaN or infinity without the adapter" in found["why"]["PRB001"]


def test_what_the_tokens_do_not_pass_through_is_open(tmp_path: Path) -> None:
    """A tower for pictures sees none of the tokens; the language model beside it does."""
    model = build("llava")
    save_model(copy.deepcopy(model), tmp_path / "base")
    for part, code in (("vision_tower", 3), ("language_model", 0)):
        config = peft.LoraConfig(r=4, target_modules=rf".*{part}.*q_proj")
        train(copy.deepcopy(model), config, tmp_path / part)
        found = probed(tmp_path / part, tmp_path / "base", code=code)
        assert found["found"] == {}
        if code:
            assert "none of the probe's 16 tokens meets" in found["why"]["PRB001"]
        else:
            assert found["checked"] == {"PRB001"}


def test_an_expert_that_no_token_is_routed_to_is_open(tmp_path: Path) -> None:
    """All experts of a layer are one parameter of the model; the third is never the best."""
    model = build("mixtral")
    model.config.num_experts_per_tok = 1
    for layer in model.model.layers:
        router = layer.mlp.gate.weight.data
        router[1], router[2] = -router[0], 0
    save_model(model, tmp_path / "base")
    for expert, said in ((2, "none of the probe's 16 tokens meets"), (1, "")):
        name = f"layers.1.block_sparse_moe.experts.{expert}.w1"
        tensors = factors({f"model.{name}": (24, 16)})
        folder = adapter(tmp_path / f"{expert}", tensors, target_modules=["w1"])
        found = probed(folder, tmp_path / "base", code=3 if said else 0)
        assert found["found"] == {}
        assert said in found["why"].get("PRB001", "")


@pytest.mark.parametrize("size", [None, 0, "40"])
def test_a_model_without_a_vocabulary_is_not_asked(size: object, models: Path) -> None:
    """Such as one that takes the numbers of characters."""
    config = transformers.CanineConfig()
    assert not hasattr(config, "vocab_size")
    if size is not None:
        config.vocab_size = size
    with pytest.raises(BackendUnavailableError, match="CanineConfig has no vocab_size"):
        choose(config, read(models / "llama-adapter"))


def test_without_torch_the_missing_package_is_named(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rankloom.probe.take", None)
    found = probed(models / "llama-adapter", models / "llama", code=3)
    assert "a probe needs" in found["why"]["PRB001"]
    with pytest.raises(BackendUnavailableError, match="not installed"):
        sdk.push(models / "llama-adapter", "a", base=models / "llama", probe=True)


def test_what_makes_no_sense_is_refused(models: Path) -> None:
    with pytest.raises(RefError, match="headers_only"):
        sdk.validate(models / "llama-adapter", against=models / "llama", probe=True,
                     headers_only=True)  # fmt: skip
    run("push", models / "llama-adapter", "b", "--base", models / "llama")
    with pytest.raises(RefError, match="folder of this machine"):
        sdk.push(models / "llama-adapter", "a", base="llama", probe=True)
    with pytest.raises(BackendUnavailableError, match="takes pixel_values"):
        sdk.push(models / "vit-adapter", "a", base=models / "vit", probe=True)
    assert [found.name for found in sdk.list()] == ["b"]


def test_a_probe_is_not_asked_for_unless_it_is(models: Path) -> None:
    shown = run("validate", models / "llama-adapter", "--against", models / "llama")
    assert "probe" not in shown
