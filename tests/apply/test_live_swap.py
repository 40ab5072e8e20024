"""Swaps: the bits of a first apply each time, and nothing of it left at the end."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from live_models import UNCHECKED, bits, llama, same, targets
from lowrank_cases import Case, part
from rankloom.base.fingerprint import fingerprint
from rankloom.base.reader import read
from rankloom.composition import Composition, compose
from rankloom.errors import (
    AdapterError,
    BackendUnavailableError,
    ConflictError,
    IncompatibleError,
    IntegrityError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings(UNCHECKED)
EACH = (("q_proj",), ("q_proj", "down_proj"), ("v_proj", "lm_head"), ("up_proj", "q_proj"))


def several(tmp_path: Path, model: nn.Module, count: int = 4) -> list[Composition]:
    """Compositions that change different modules, one of them two adapters."""
    folders = [
        Case(targets(model, *EACH[n % 4]), rank=3 + n, seed=n).write(tmp_path / str(n))
        for n in range(count)
    ]
    found = [compose([part(folder)], [0.5 + n]) for n, folder in enumerate(folders)]
    return [*found, compose([part(folders[0]), part(folders[1])], [1, -0.5])]


def fresh(model: nn.Module, composition: Composition) -> Mapping[str, torch.Tensor]:
    with composition.apply(model):
        return bits(model)


@pytest.mark.parametrize("tied", [False, True])
def test_a_thousand_swaps_leave_no_trace(tmp_path: Path, *, tied: bool) -> None:
    model = llama(tie_word_embeddings=tied)
    kept, addresses = bits(model), {n: p.data_ptr() for n, p in model.named_parameters()}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    compositions = several(tmp_path, model)
    expected = [fresh(model, one) for one in compositions]
    choices, seed = random.Random(7), 1000  # noqa: S311 - no secret
    handle = compositions[0].apply(model)
    for step in range(seed):
        number = choices.randrange(len(compositions) + 1)
        wanted = compositions[number] if number < len(compositions) else None
        handle.swap(wanted)
        if step % 50 == 0:
            assert same(model, kept if wanted is None else expected[number])
    handle.restore()
    assert same(model, kept)
    assert {n: p.data_ptr() for n, p in model.named_parameters()} == addresses
    assert all(
        parameter is parameters[name]
        for name, parameter in model.named_parameters(remove_duplicate=False)
    )


def test_a_swap_gives_the_bits_of_a_first_apply(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        model = llama(dtype)
        compositions = several(tmp_path / str(dtype), model)
        expected = [fresh(model, one) for one in compositions]
        with compositions[0].apply(model) as handle:
            for number in (1, 2, 4, 0, 3, 2):
                handle.swap(compositions[number])
                assert same(model, expected[number])
                assert set(handle.targets) == set(compositions[number].targets)


def test_a_swap_that_fails_leaves_what_lay_there(tmp_path: Path) -> None:
    model = llama()
    one, two, *_ = several(tmp_path, model)
    with one.apply(model) as handle:
        before = bits(model)
        weights = two.parts[0].adapter.path / "adapter_model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-100])
        with pytest.raises(AdapterError, match="FMT008"):
            handle.swap(two)
        assert same(model, before)
        weights.write_bytes(whole)
        handle.swap(two)
        assert not same(model, before)


def test_a_swap_that_fails_while_it_writes_leaves_what_lay_there(tmp_path: Path) -> None:
    model = llama()
    one, two, *_ = several(tmp_path, model)
    room = sum(p.nbytes for n, p in model.named_parameters() if "q_proj" in n)
    with one.apply(model, device_bytes=room) as handle:
        before = bits(model)
        with pytest.raises(BackendUnavailableError, match=r"a copy of .*down_proj.* exceeds"):
            handle.swap(two)
        assert same(model, before)
        handle.swap(None)
        handle.swap(one)
        assert same(model, before)


def test_a_swap_to_the_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    model = llama()
    model.save_pretrained(tmp_path / "base")
    right = fingerprint(read(tmp_path / "base"))
    folder = Case(targets(model, "q_proj")).write(tmp_path / "right")
    other = llama()
    with torch.no_grad():
        other.model.norm.weight[0] += 1
    other.save_pretrained(tmp_path / "other")
    wrong = fingerprint(read(tmp_path / "other"))
    with compose([part(folder)]).apply(model) as handle:
        before = bits(model)
        with pytest.raises(IncompatibleError, match="BASE003"):
            handle.swap(compose([part(folder, base=wrong)]))
        assert same(model, before)
        handle.swap(compose([part(folder, base=right)], [2]))
        assert not same(model, before)


def test_after_restore_a_handle_swaps_no_more(tmp_path: Path) -> None:
    model = llama()
    one, two, *_ = several(tmp_path, model)
    handle = one.apply(model)
    handle.restore()
    with pytest.raises(ConflictError, match="nothing lies on this LlamaForCausalLM"):
        handle.swap(two)
    with handle.reading() as composition:
        assert composition is None


def test_originals_in_little_room(tmp_path: Path) -> None:
    model = llama()
    model.save_pretrained(tmp_path / "base")
    compositions = several(tmp_path, model)
    kept, expected = bits(model), [fresh(model, one) for one in compositions]
    for room in (
        {"device_bytes": 3000, "host_bytes": None},
        {"device_bytes": 3000, "checkpoint": tmp_path / "base"},
        {"device_bytes": 0, "checkpoint": tmp_path / "base"},
    ):
        with compositions[0].apply(model, **room) as handle:
            for number in (3, 1, 2, 4):
                handle.swap(compositions[number])
                assert same(model, expected[number])
        assert same(model, kept)


def test_a_checkpoint_must_be_that_of_the_model_and_stay_so(tmp_path: Path) -> None:
    model, base = llama(), tmp_path / "base"
    model.save_pretrained(base)
    [one, *_] = several(tmp_path, model)
    kept = bits(model)
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[3, 3] += 1
    with pytest.raises(IncompatibleError, match=r"BASE003 model\.layers\.1\.self_attn\.q_proj"):
        one.apply(model, device_bytes=0, checkpoint=base)
    model.load_state_dict(kept)
    handle = one.apply(model, device_bytes=0, checkpoint=base)
    file = base / "model.safetensors"
    state = file.stat()
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(IntegrityError, match="changed while"):
        handle.restore()
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    handle.restore()
    assert same(model, kept)


def test_a_checkpoint_with_its_own_prefix_and_dtype(tmp_path: Path) -> None:
    model = llama(torch.float32)
    stored = {f"wrapped.{name}": t.bfloat16() for name, t in model.state_dict().items()}
    model.load_state_dict({name.removeprefix("wrapped."): t for name, t in stored.items()})
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    save_file(stored, tmp_path / "base" / "model.safetensors")
    one, two, *_ = several(tmp_path, model)
    kept, expected = bits(model), fresh(model, two)
    with one.apply(model, device_bytes=0, checkpoint=tmp_path / "base") as handle:
        handle.swap(two)
        assert same(model, expected)
    assert same(model, kept)


def test_factors_of_hundreds_of_adapters_stay_within_their_bytes(tmp_path: Path) -> None:
    model = llama()
    shapes = targets(model, "q_proj")
    folders = [Case(shapes, seed=n).write(tmp_path / str(n)) for n in range(12)]
    compositions = [compose([part(folder)], [n / 100]) for n in range(1, 21) for folder in folders]
    expected = fresh(model, compositions[-1])
    for limit in (0, 100_000):
        with compositions[0].apply(model, factor_bytes=limit) as handle:
            for one in compositions:
                handle.swap(one)
                held = handle._factors
                assert held.nbytes <= limit
            assert (len(held) > 1) == (limit > 0)
            assert same(model, expected)
            assert held.nbytes == sum(one.nbytes for one in held._held.values())


def test_factors_are_not_read_again_while_they_are_kept(tmp_path: Path) -> None:
    model = llama()
    one, two, *_ = several(tmp_path, model)
    expected = fresh(model, one)
    with one.apply(model) as handle:
        handle.swap(two)
        (one.parts[0].adapter.path / "adapter_model.safetensors").unlink()
        handle.swap(one)
        assert same(model, expected)


def test_factors_are_made_anew_for_a_model_that_moved(tmp_path: Path) -> None:
    model = llama()
    one, two, *_ = several(tmp_path, model)
    with one.apply(model) as handle:
        model.float()
        handle.swap(two)
        handle.swap(one)
        moved = bits(model)
    assert same(model, {name: tensor.float() for name, tensor in bits(llama()).items()})
    assert all(torch.equal(fresh(model, one)[name], tensor) for name, tensor in moved.items())


def test_what_a_kept_copy_no_longer_is_is_copied_again(tmp_path: Path) -> None:
    model = llama()
    one, two, *_ = several(tmp_path, model)
    with two.apply(model) as handle:
        handle.swap(one)
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight.mul_(2)  # not changed by ``one``
        kept = bits(model)["model.layers.0.mlp.down_proj.weight"]
        handle.swap(two)
    assert torch.equal(model.model.layers[0].mlp.down_proj.weight, kept)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler itself
def test_a_compiled_model_computes_with_what_lies_on_it(tmp_path: Path) -> None:
    model = llama(torch.float32)
    one, two, *_ = several(tmp_path, model)
    compiled = torch.compile(model, backend="aot_eager")
    tokens = torch.tensor([[1, 2, 3]])
    with torch.no_grad(), one.apply(compiled) as handle:
        first = compiled(tokens, use_cache=False).logits
        with torch.compiler.set_stance("fail_on_recompile"):
            handle.swap(two)
            found = compiled(tokens, use_cache=False).logits
        assert torch.allclose(found, model(tokens, use_cache=False).logits, atol=1e-5)
        assert not torch.allclose(found, first, atol=1e-3)


class Unet(nn.Module):
    """Modules named as diffusers names them; its config is a plain mapping."""

    config = {"_class_name": "UNet2DConditionModel"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4, 8, 3)
        block = nn.Module()
        block.to_q, block.to_out = nn.Linear(8, 8), nn.ModuleList([nn.Linear(8, 8), nn.Dropout()])
        self.down_blocks = nn.ModuleList([block])


def test_a_model_as_diffusers_has_it(tmp_path: Path) -> None:
    model = Unet().half()
    kept = bits(model)
    shapes = {"down_blocks.0.to_q": (8, 8), "down_blocks.0.to_out.0": (8, 8)}
    folders = [Case(shapes, seed=n).write(tmp_path / str(n)) for n in range(2)]
    one, two = (compose([part(folder)]) for folder in folders)
    expected = fresh(model, two)
    with one.apply(model) as handle:
        handle.swap(two)
        assert same(model, expected)
    assert same(model, kept)
