"""Runs a case through the command, on files only, and judges what was written.

The oracle is PEFT in float64: its merged weights, where merging gives what its own forward gives,
and its forward in any case.
"""

from __future__ import annotations

import copy
import functools
import re
import warnings
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from click.testing import CliRunner
from peft import PeftModel, get_peft_model

from acceptance import bases, kinds
from loractl.main import main
from peft_cases import check, edit_config, randomise, read_checkpoint, save_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from peft import PeftConfig
    from torch import nn

LAYOUTS = (
    (torch.float32, False),
    (torch.float32, True),
    (torch.float32, False),
    (torch.bfloat16, True),
    (torch.bfloat16, False),
)
"""(dtype, sharded) of the bases, taken in turns."""


@dataclass(frozen=True)
class Case:
    """One kind of adapter on one base."""

    kind: str
    base: str

    @property
    def name(self) -> str:
        """How the case is called in lists."""
        return f"{self.kind} {self.base}"

    @property
    def layout(self) -> tuple[torch.dtype, bool]:
        """Form of the base on disk."""
        if self.kind in {"pissa", "olora"}:  # PEFT rounds their residual to the base's dtype
            return LAYOUTS[0]
        return LAYOUTS[zlib.crc32(self.name.encode()) % len(LAYOUTS)]


class Store:
    """Bases on disk, each form written once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def base(self, case: Case) -> Path:
        """Return the folder of a case's base, in its layout."""
        dtype, sharded = case.layout
        folder = self._root / f"{case.base}-{dtype}-{sharded}"
        if not folder.exists():
            made = copy.deepcopy(bases.model(case.base, dtype)).to(dtype)
            save_model(made, folder, "5KB" if sharded else "50GB")
        return folder


@functools.cache
def cases() -> tuple[Case, ...]:
    """Return every kind on every base that PEFT can put it on."""
    pairs = [Case(kind, base) for kind in kinds.KINDS for base in bases.BASES]
    return tuple(case for case in pairs if config(case) is not None)


def config(case: Case) -> PeftConfig | None:
    """Return the config of a case, or ``None`` if PEFT has no such adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT has opinions about tiny layers
        return kinds.KINDS[case.kind](bases.BASES[case.base])


def write(case: Case, folder: Path, seed: int = 0, like: Case | None = None) -> PeftModel:
    """Write a random adapter for a case and return the PEFT model, in float32.

    Args:
        case: which kind and base.
        folder: where to.
        seed: of the random values.
        like: the case whose layout the base has; default: this one.
    """
    base = copy.deepcopy(bases.model(case.base, (like or case).layout[0]))
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(base, config(case)).eval()
        randomise(model, seed)
        model.save_pretrained(folder)
    edit_config(folder, auto_mapping=None)  # it names a test's class, which nobody should import
    return model


def forward(base: str, model: nn.Module) -> torch.Tensor:
    """Return what a model answers, in float64, as one vector."""
    dtype = next(model.parameters()).dtype
    inputs = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in bases.BASES[base].inputs().items()
    }
    with torch.no_grad():
        found = model(**inputs)
    if not isinstance(found, torch.Tensor):
        found = found.logits if "logits" in found else found.logits_per_text
    return found.double().flatten()


@dataclass
class Truth:
    """What PEFT makes of a case in float64.

    Attributes:
        answer: of its forward, unmerged.
        weights: of the merged model, by name on disk; ``None`` if merging is not what its forward
            does.
    """

    answer: torch.Tensor
    weights: dict[str, torch.Tensor] | None

    @property
    def peft(self) -> str:
        """In one word, what PEFT's merging is worth."""
        return "unsound" if self.weights is None else "sound"


def truth(case: Case, model: PeftModel, folder: Path) -> Truth:
    """Ask PEFT."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        double = model.double()
        answer = forward(case.base, double)
        try:
            merged = double.merge_and_unload()
        except Exception:  # noqa: BLE001 - whatever PEFT refuses with
            return Truth(answer, None)
        if not close(forward(case.base, merged), answer, 1e-5):
            return Truth(answer, None)
        save_model(merged, folder)
    return Truth(answer, read_checkpoint(folder))


def close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> bool:
    """Compare answers with ``tolerance · max(1, max |wanted|)``."""
    bound = tolerance * max(1.0, float(wanted.abs().max()))
    return bool((found - wanted).abs().max() <= bound)


@dataclass
class Applied:
    """What the command did.

    Attributes:
        code: exit code.
        error: what it said if it was not 0.
        output: all that it printed.
    """

    code: int
    error: str
    output: str

    @property
    def rule(self) -> str:
        """Id of the rule that refused."""
        found = re.search(r"[A-Z]{3}\d{3}", self.error)
        return found[0] if found else ""


def apply(adapters: Sequence[Path], base: Path, out: Path, weights: str = "") -> Applied:
    """Run ``loractl apply`` in this process."""
    options = ["--weights", weights] if weights else []
    arguments = ["apply", *map(str, adapters), "--base", str(base), "-o", str(out), *options]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "BASE001")
        result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    _, _, error = result.output.partition("error: ")
    return Applied(result.exit_code, error.replace(f"{adapters[0]}: ", ""), result.output)


def load(base: str, folder: Path) -> nn.Module:
    """Load a written checkpoint as its users do, nothing missing and nothing left over."""
    made = bases.model(base)
    if bases.BASES[base].is_plain:
        empty = copy.deepcopy(made)
        state = read_checkpoint(folder)
        empty.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        return empty.eval()
    loaded, info = type(made).from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    return bases.settle(loaded)


def judge(case: Case, truth: Truth, before: Path, out: Path) -> None:
    """Compare a written checkpoint with the truth."""
    loaded = load(case.base, out)
    if truth.weights is not None:
        found = read_checkpoint(out)
        for name in found.keys() - truth.weights.keys():  # PEFT writes what is tied only once
            tensor = found.pop(name)
            assert any(torch.equal(tensor, other) for other in found.values()), name
        check(found, truth.weights, read_checkpoint(before))
    if case.layout[0] == torch.float32:
        answer = forward(case.base, loaded.double())
        assert close(answer, truth.answer, 2e-4), (answer - truth.answer).abs().max()
