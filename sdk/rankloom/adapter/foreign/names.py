"""From the names that other tools give modules to those of the model, if exactly one is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.foreign.pairs import refusal

if TYPE_CHECKING:
    from collections.abc import Collection

FLAT = ("lora_unet_", "lora_te1_", "lora_te2_", "lora_te_", "lora_transformer_")
PARTS = ("unet.", "text_encoder.", "text_encoder_2.", "transformer.")
_BASE = "give the model's folder with --base"


def part(name: str) -> str:
    """Return the start of a name that says which model of a pipeline it is in; may be empty."""
    return next((start for start in FLAT + PARTS if name.startswith(start)), "")


def resolve(name: str, modules: Collection[str] | None) -> str:
    """Return the module's dotted name in the model.

    Args:
        name: as in the file.
        modules: dotted names of the model's modules; ``None``: no base was given.

    Raises:
        UnsupportedAdapterError: no module can be meant, or several, or only a base could tell.
    """
    start = part(name)
    rest = _module(name.removeprefix(start))
    if modules is None:
        if start in FLAT or start == "transformer.":
            raise refusal(name, "does not tell the module's name without the base", _BASE)
        return rest
    if start in FLAT:
        found = sorted(module for module in modules if module.replace(".", "_") == rest)
    else:
        found = sorted({rest, _module(name)} & set(modules))
    if len(found) != 1:
        what = f"can mean {', '.join(found)}" if found else "is no module of the base"
        raise refusal(name, what, "give the base that it was trained on")
    return found[0]


def _module(name: str) -> str:
    """Return the module that a processor of diffusers keeps the factors of."""
    above, processor, leaf = name.rpartition(".processor.")
    return f"{above}.{'to_out.0' if leaf == 'to_out' else leaf}" if processor else name
