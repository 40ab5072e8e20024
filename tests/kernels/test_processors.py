"""How many products of bfloat16 matrices are worth their time, by what a processor can do."""

from collections.abc import Mapping

import pytest
import torch

from rankloom_kernels.narrow import most_products

ZEN_4 = {"avx512_bf16": True, "avx512_vnni": True}


@pytest.mark.parametrize(
    ("known", "most"),
    [
        ({}, 0),
        ({"avx512_f": True, "avx512_vnni": True}, 0),  # Skylake and Ice Lake servers
        ({"avx2": True, "avx_vnni": True}, 0),  # clients multiply no bfloat16 numbers
        (ZEN_4, 2),
        ({**ZEN_4, "avx_vnni": True}, 3),
        ({"amx_bf16": True}, 3),
        ({"amx_bf16": False, "avx512_bf16": False}, 0),
    ],
)
def test_products_are_counted_by_instructions(
    known: Mapping[str, bool], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert most_products.__wrapped__() == most


def test_a_torch_that_cannot_tell_counts_on_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert most_products.__wrapped__() == 0


def test_the_names_of_instructions_are_those_of_torch() -> None:
    known = torch.cpu.get_capabilities()
    if torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        assert {"avx512_bf16", "avx512_vnni"} <= known.keys()
