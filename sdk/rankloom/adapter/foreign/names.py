"""From the names of another tool's file to those of the model, if exactly one is meant.

kohya writes dots as underscores and puts a start before the name that says which model of a
pipeline it is in; diffusers puts the model's own name there, and in older files names processors.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from rankloom.adapter.foreign.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

FLAT = {
    "lora_unet_": "unet",
    "lora_transformer_": "transformer",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
}
"""Starts of names with underscores, and the folder of a pipeline that they mean."""

PARTS = ("unet", "text_encoder", "text_encoder_2", "text_encoder_3", "transformer")
_BASE = "give the model's folder with --base"
_TRAINED = "give the base that it was trained on, of which each name is one module"
_PROCESSOR = ".processor."
_OLD = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
"""What diffusers called the projections of a text encoder before it used PEFT."""


def part(name: str) -> str:
    """Return the start of a name that says which model of a pipeline it is in; may be empty."""
    starts = (*FLAT, *(f"{model}." for model in PARTS))
    return next((start for start in starts if name.startswith(start)), "")


def model(start: str) -> str:
    """Return the folder that a model has in a pipeline, from the start of its names."""
    return FLAT.get(start, start.rstrip("."))


class Index:
    """The modules of a model by all their spellings, with dots and without.

    Args:
        modules: every spelling of a module's name in the model, with the name it has in memory;
            ``None``: no base was given, so names are what the file says.
    """

    def __init__(self, modules: Mapping[str, str] | None) -> None:
        self._modules = modules
        self._flat: dict[str, set[str]] = {}
        for spelling, module in (modules or {}).items():
            self._flat.setdefault(spelling.replace(".", "_"), set()).add(module)

    def resolve(self, name: str) -> str:
        """Return the module's dotted name in the model.

        Args:
            name: as in the file.

        Raises:
            UnsupportedAdapterError: no module can be meant, or several, or only a base could tell.
        """
        start = part(name)
        rest = _module(name.removeprefix(start), start)
        if self._modules is None:
            if start in FLAT or start == "transformer.":
                raise refusal(name, "does not tell the module's name without the base", _BASE)
            return rest
        if start in FLAT:
            found = self._flat.get(rest, set())
        else:
            spelled = {rest, _module(name, start)} & self._modules.keys()
            found = {self._modules[spelling] for spelling in spelled}
        if not found:
            raise refusal(name, f"is no module of the base{self._near(rest)}", _TRAINED, "TEN005")
        if len(found) > 1:
            raise refusal(name, f"can mean {' or '.join(sorted(found))}", _TRAINED)
        return next(iter(found))

    def _near(self, rest: str) -> str:
        pool = sorted(self._flat)[:4000]  # difflib compares with each of them
        near = difflib.get_close_matches(rest.replace(".", "_"), pool, n=2)
        found = sorted({module for one in near for module in self._flat[one]})
        return f"; near: {', '.join(found)}" if found else ""


def _module(name: str, start: str) -> str:
    """Return the module that factors beside it, in older files, belong to."""
    above, processor, leaf = name.rpartition(_PROCESSOR)
    if processor:
        return f"{above}.{'to_out.0' if leaf == 'to_out' else leaf}"
    above, _, leaf = name.rpartition(".")
    is_text = start.startswith("text_encoder") and above.endswith("self_attn")
    return f"{above}.{_OLD[leaf]}" if is_text and leaf in _OLD else name
