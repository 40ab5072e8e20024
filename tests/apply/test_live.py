from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertForMaskedLM, BertModel

from live_models import UNCHECKED, bert, bits, composed, gpt2, llama, same, targets
from lowrank_cases import Case, deltas, part
from rankloom.apply.live import identity
from rankloom.base.fingerprint import fingerprint
from rankloom.base.reader import read
from rankloom.composition import compose
from rankloom.errors import AdapterError, ConflictError, IncompatibleError, RankloomWarning

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.base.fingerprint import Leaf
    from rankloom.fingerprint import Fingerprint

pytestmark = pytest.mark.filterwarnings(UNCHECKED)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_applied_then_restored_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    model = llama(dtype)
    kept, addresses = bits(model), {n: p.data_ptr() for n, p in model.named_parameters()}
    composition, expected = composed(tmp_path, targets(model, "q_proj", "down_proj"))
    with composition.apply(model) as handle:
        for name, parameter in model.named_parameters():
            delta = expected.get(name.removesuffix(".weight"))
            if delta is None:
                assert torch.equal(parameter, kept[name])
            else:
                exact = kept[name].double() + delta
                # float32 and wider within two roundings, narrower within one step of 10 bits
                bound = {4: 2e-6, 8: 1e-14}.get(dtype.itemsize, 0)
                wrong = ((parameter - exact).abs() > bound) & (parameter != exact.to(dtype))
                assert wrong.sum() <= 1
        assert set(handle.targets) == {f"{module}.weight" for module in expected}
    assert same(model, kept)
    assert {n: p.data_ptr() for n, p in model.named_parameters()} == addresses


def test_gpt2_conv1d_is_told_by_its_type(tmp_path: Path) -> None:
    model = gpt2()
    kept = bits(model)
    composition, expected = composed(tmp_path, targets(model, "attn.c_attn", "mlp.c_proj"))
    with composition.apply(model):
        for module, delta in expected.items():
            found = model.get_submodule(module).weight
            assert (found - kept[f"{module}.weight"] - delta.T).abs().max() < 2e-6
    assert same(model, kept)


@pytest.mark.parametrize(
    ("trained", "applied"), [(BertForMaskedLM, BertModel), (BertModel, BertForMaskedLM)]
)
def test_prefix_of_the_backbone_may_be_missing_on_either_side(
    tmp_path: Path, trained: type[nn.Module], applied: type[nn.Module]
) -> None:
    composition, _ = composed(tmp_path, targets(bert(trained), "query"))
    model = bert(applied)
    kept = bits(model)
    with composition.apply(model) as handle:
        assert len(handle.targets) == 2
        assert not same(model, kept)
    assert same(model, kept)


def test_an_exception_in_the_block_restores(tmp_path: Path) -> None:
    model = llama()
    kept = bits(model)
    composition, _ = composed(tmp_path, targets(model, "q_proj"))
    with pytest.raises(ZeroDivisionError), composition.apply(model):
        raise ZeroDivisionError
    assert same(model, kept)


def test_an_apply_that_fails_half_way_restores(tmp_path: Path) -> None:
    model = llama()
    kept = bits(model)
    composition, _ = composed(tmp_path, targets(model, "q_proj", "v_proj"))
    weights = composition.parts[1].adapter.path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AdapterError, match="FMT008"):
        composition.apply(model)
    assert same(model, kept)
    weights.unlink()
    Case(targets(model, "q_proj", "v_proj"), rank=7, seed=2).write(tmp_path / "again")
    (tmp_path / "again" / weights.name).rename(weights)
    composition.apply(model).restore()  # nothing of the failed attempt is left on the model


def test_handle_without_a_block(tmp_path: Path) -> None:
    model = llama()
    kept = bits(model)
    composition, _ = composed(tmp_path, targets(model, "q_proj"))
    handle = composition.apply(model)
    assert not same(model, kept)
    handle.restore()
    assert same(model, kept)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.zero_()
    handle.restore()  # does nothing the second time
    assert not same(model, kept)


def test_a_second_composition_on_the_same_parameters_is_refused(tmp_path: Path) -> None:
    model = llama()
    composition, _ = composed(tmp_path, targets(model, "q_proj"))
    shapes = {"self_attn.v_proj": (16, 32)}
    other = compose([part(Case(shapes).write(tmp_path / "other"))])
    with composition.apply(model):
        kept = bits(model)
        with pytest.raises(
            ConflictError, match="another composition lies on this LlamaForCausalLM"
        ):
            composition.apply(model)
        assert same(model, kept)
        with pytest.raises(ConflictError):
            other.apply(model.model.layers[1])
        assert same(model, kept)
    with composition.apply(model):
        pass


def test_restore_follows_a_model_that_moved_to_another_dtype(tmp_path: Path) -> None:
    model = llama(torch.bfloat16)
    kept = bits(model)
    composition, _ = composed(tmp_path, targets(model, "q_proj"))
    with composition.apply(model):
        model.float()
    assert all(torch.equal(tensor, kept[n].float()) for n, tensor in model.state_dict().items())


@pytest.mark.parametrize("changed", ["lm_head", "model.embed_tokens"])
def test_of_tied_modules_the_changed_one_gets_a_parameter_of_its_own(
    tmp_path: Path, changed: str
) -> None:
    model = llama(torch.float32, tie_word_embeddings=True)
    kept, shared = bits(model), model.lm_head.weight
    folder = Case({"lm_head": (50, 32)}).write(tmp_path / "head")
    [delta] = deltas(folder).values()
    if changed != "lm_head":
        as_embedding(folder, changed)
    composition = compose([part(folder)])
    other = {"lm_head", "model.embed_tokens"} - {changed}
    with composition.apply(model):
        found = model.get_submodule(changed).weight
        assert (found - (shared.double() + delta)).abs().max() < 2e-6
        assert model.get_submodule(*other).weight is shared
        assert torch.equal(shared, kept["lm_head.weight"])
        assert isinstance(found, nn.Parameter)
        model.to(torch.bfloat16)
    assert model.lm_head.weight is model.model.embed_tokens.weight is shared
    assert torch.equal(shared, kept["lm_head.weight"].bfloat16())


def as_embedding(folder: Path, module: str) -> None:
    """Turn the factors of a head into those that PEFT would save of the embedding."""
    path, prefix = folder / "adapter_model.safetensors", f"base_model.model.{module}.lora_embedding"
    a, b = (load_file(path)[f"base_model.model.lm_head.lora_{leaf}.weight"] for leaf in "AB")
    save_file({f"{prefix}_A": b.T.contiguous(), f"{prefix}_B": a.T.contiguous()}, path)


def test_parameters_that_share_a_part_of_their_memory_are_refused(tmp_path: Path) -> None:
    model = llama(torch.float32)
    memory = torch.zeros(51, 32)
    model.lm_head.weight = nn.Parameter(memory[1:])
    model.model.embed_tokens.weight = nn.Parameter(memory[:-1])
    composition = compose([part(Case({"lm_head": (50, 32)}).write(tmp_path / "head"))])
    with pytest.raises(IncompatibleError, match=r"BASE004 lm_head.* and .*embed_tokens") as caught:
        composition.apply(model)
    assert "clone" in caught.value.hint
    assert not memory.any()


def test_what_no_exact_sum_can_be_formed_in_is_refused(tmp_path: Path) -> None:
    composition, _ = composed(tmp_path, {"model.layers.0.self_attn.q_proj": (32, 32)})
    name = "model.layers.0.self_attn.q_proj"
    wrapped = llama()
    torch.nn.utils.parametrizations.weight_norm(wrapped.get_submodule(name))
    with pytest.raises(IncompatibleError, match="is no plain parameter"):
        composition.apply(wrapped)
    integer = llama()
    integer.get_submodule(name).weight = nn.Parameter(
        torch.zeros(32, 32, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(IncompatibleError, match=r"BASE006 .*stored as I8"):
        composition.apply(integer)
    absent = llama().to("meta")
    with pytest.raises(IncompatibleError, match="meta"):
        composition.apply(absent)
    other = llama()
    other.get_submodule("model.layers.0.self_attn").q_proj = nn.Linear(32, 31, bias=False)
    with pytest.raises(IncompatibleError, match=r"BASE002 .* is \(31, 32\)"):
        composition.apply(other)
    odd = llama()
    odd.get_submodule("model.layers.0.self_attn").q_proj = nn.Embedding(32, 32)
    with pytest.raises(IncompatibleError, match="belongs to a Embedding, the change to a linear"):
        composition.apply(odd)
    with pytest.raises(
        IncompatibleError, match=r"no tensor model\.layers\.0\.self_attn\.q_proj.weight; nearest"
    ):
        composition.apply(bert())


def test_a_model_being_trained_keeps_its_graph(tmp_path: Path) -> None:
    model = llama(torch.float32)
    composition, _ = composed(tmp_path, targets(model, "q_proj"))
    with composition.apply(model):
        model(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    gradients = [p.grad for n, p in model.named_parameters() if "q_proj" in n]
    assert all(gradient is not None for gradient in gradients)


def known(model: nn.Module, path: Path) -> Fingerprint:
    """Identity of a model as its checkpoint on disk has it."""
    model.save_pretrained(path)
    return fingerprint(read(path))


@pytest.fixture
def q_proj(tmp_path: Path) -> Path:
    return Case(targets(llama(), "q_proj")).write(tmp_path / "adapter")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("tied", [False, True])
def test_the_right_live_base_passes_without_a_warning(
    tmp_path: Path, q_proj: Path, *, tied: bool
) -> None:
    model = llama(tie_word_embeddings=tied)
    composition = compose([part(q_proj, base=known(model, tmp_path / "base"))])
    with composition.apply(model):
        pass
    with composition.apply(llama(tie_word_embeddings=tied).float()):
        pass  # a lossless cast of the base


@pytest.mark.filterwarnings("error")
def test_the_backbone_alone_is_compared_too(tmp_path: Path) -> None:
    model = bert(BertModel)
    folder = Case(targets(model, "query")).write(tmp_path / "adapter")
    model.save_pretrained(tmp_path / "base")
    tensors = {f"bert.{name}": t for name, t in model.state_dict().items()}
    save_file(tensors, tmp_path / "base" / "model.safetensors")
    with compose([part(folder, base=fingerprint(read(tmp_path / "base")))]).apply(model):
        pass


def test_a_live_model_with_other_values_is_refused(tmp_path: Path, q_proj: Path) -> None:
    model = llama()
    composition = compose([part(q_proj, base=known(model, tmp_path / "base"))])
    with composition.apply(model):
        pass
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    kept = bits(model)
    with pytest.raises(IncompatibleError, match=r"BASE003 the LlamaForCausalLM .* exact "):
        composition.apply(model)
    assert same(model, kept)


def test_values_are_hashed_once_while_nobody_else_writes(
    tmp_path: Path, q_proj: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llama()
    composition = compose([part(q_proj, base=known(model, tmp_path / "base"))])
    hashed: list[bool] = []
    real = identity.fingerprint_of

    def counted(
        leaves: list[Leaf], config: dict[str, object], *, values: bool = True
    ) -> Fingerprint:
        hashed.append(values)
        return real(leaves, config, values=values)

    monkeypatch.setattr(identity, "fingerprint_of", counted)
    for _ in range(3):
        with composition.apply(model):
            pass
    assert hashed.count(True) == 1
    with composition.apply(model), torch.no_grad():
        model.model.norm.weight[0] += 1  # not one of the targets, so it stays
    with pytest.raises(IncompatibleError, match="BASE003"):
        composition.apply(model)


def test_what_cannot_be_compared_is_a_warning(tmp_path: Path, q_proj: Path) -> None:
    base = known(llama(), tmp_path / "base")
    with (
        pytest.warns(RankloomWarning, match="no adapter records"),
        compose([part(q_proj)]).apply(llama()),
    ):
        pass
    composition = compose([part(q_proj, base=base)])
    half = llama().half()
    with pytest.warns(RankloomWarning, match="cannot be compared"), composition.apply(half):
        pass
    wider = llama()
    wider.extra = nn.Linear(2, 2)
    with pytest.warns(RankloomWarning, match="cannot be compared"), composition.apply(wider):
        pass


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # torch itself
def test_a_compiled_model_is_changed_where_it_keeps_its_weights(
    tmp_path: Path, q_proj: Path
) -> None:
    model = llama()
    kept = bits(model)
    with compose([part(q_proj)]).apply(torch.compile(model)):
        assert not same(model, kept)
    assert same(model, kept)
