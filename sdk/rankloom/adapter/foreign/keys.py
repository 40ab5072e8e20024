"""Sorts the keys of another tool's file into the tensors, and the alpha, of each module.

==========  =====================================================================
kohya       ``<module>.lora_down.weight``, ``.lora_up.weight``, ``.alpha``; for
            convolutions perhaps ``.lora_mid.weight``; of DoRA ``.dora_scale``;
            of LyCORIS ``.hada_w1_a`` and its like, ``.lokr_w1`` and its like
diffusers   ``<module>.lora.down.weight`` and its like, ``<module>.lora_A.weight``
            with ``.lora_magnitude_vector`` of DoRA
loralib     ``<module>.lora_A``, ``<module>.lora_B``
==========  =====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.adapter.foreign.refusals import broken, refusal
from rankloom.adapter.kinds.factors import DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rankloom.tensorfile.header import TensorEntry

PREFIX = "base_model.model."
ALPHA, A, B, MID, MAGNITUDE = "alpha", "a", "b", "mid", "magnitude"
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR = (
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b"),
    *("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
)
FORMATS: Mapping[str, Mapping[str, str]] = {
    "kohya": {
        ".lora_down.weight": A,
        ".lora_up.weight": B,
        ".lora_mid.weight": MID,
        ".dora_scale": MAGNITUDE,
        **{f".{name}": name for name in (*LOHA, *LOKR)},
    },
    "diffusers": {
        ".lora.down.weight": A,
        ".lora.up.weight": B,
        ".lora_linear_layer.down.weight": A,
        ".lora_linear_layer.up.weight": B,
        "_lora.down.weight": A,
        "_lora.up.weight": B,
        ".lora_A.weight": A,
        ".lora_B.weight": B,
        ".lora_magnitude_vector": MAGNITUDE,
        ".lora_magnitude_vector.weight": MAGNITUDE,
    },
    "loralib": {".lora_A": A, ".lora_B": B},
}
"""How the keys of a module's tensors end in each format, and what they are."""

_WITH_ALPHA = frozenset({"kohya", "diffusers"})


@dataclass(frozen=True, slots=True)
class Module:
    """One module's tensors.

    Attributes:
        name: as the file gives it.
        kind: ``"LORA"``, ``"LOHA"`` or ``"LOKR"``, PEFT's name of it.
        tensors: by what they are: ``a`` (rank, in, …), ``b`` (out, rank, …), perhaps ``mid`` and
            ``magnitude``; those of LyCORIS under their own names.
        alpha: a tensor of one number, if the file has it.
    """

    name: str
    kind: str
    tensors: Mapping[str, TensorEntry]
    alpha: TensorEntry | None = None


def detect(tensors: Iterable[str]) -> str:
    """Return the one format that a file's keys have.

    Raises:
        UnsupportedAdapterError: they have none, or those of several.
    """
    keys = list(tensors)
    found = [
        name for name, ends in FORMATS.items() if any(key.endswith(tuple(ends)) for key in keys)
    ]
    if len(found) != 1:
        what = f"has keys of {' and '.join(found) or 'no known LoRA format'}"
        raise refusal(next(iter(keys), "the file"), what, "say which with --format")
    return found[0]


def read(tensors: Mapping[str, TensorEntry], kind: str) -> list[Module]:
    """Return the tensors of every module, sorted by module.

    Raises:
        UnsupportedAdapterError: a key is none of the format.
        AdapterError: a tensor lacks another one, or their shapes do not fit.
    """
    if ours := next((key for key in tensors if key.startswith(PREFIX)), None):
        raise refusal(ours, "is a PEFT tensor already", "use the folder as it is")
    modules: dict[str, dict[str, TensorEntry]] = {}
    strange = []
    for key, entry in tensors.items():
        name, what = _split(key, kind)
        if not what:
            strange.append(key)
        elif (held := modules.setdefault(name, {})).setdefault(what, entry) is not entry:
            raise refusal(key, f"is a second tensor beside {held[what].name}", "split the file")
    strange += [f"{name}.{ALPHA}" for name, held in modules.items() if held.keys() == {ALPHA}]
    if strange:
        what = f"is no {kind} LoRA tensor that a PEFT folder can hold ({len(strange)} such)"
        raise refusal(min(strange), what, "merge it with the tool that made it")
    return [_module(name, held) for name, held in sorted(modules.items())]


def _split(key: str, kind: str) -> tuple[str, str]:
    """Return the module's name, and what the tensor is; empty: unknown."""
    ends = dict(FORMATS[kind])
    if kind in _WITH_ALPHA:
        ends[f".{ALPHA}"] = ALPHA
    end = max((end for end in ends if key.endswith(end)), key=len, default="")
    return (key[: -len(end)], ends[end]) if end else (key, "")


def _module(name: str, held: dict[str, TensorEntry]) -> Module:
    alpha = held.pop(ALPHA, None)
    for entry in held.values():
        if entry.dtype not in DTYPES:
            raise broken(entry.name, f"has dtype {entry.dtype}", "TEN007")
    families = {"LOHA": set(LOHA), "LOKR": set(LOKR), "LORA": {A, B, MID, MAGNITUDE}}
    found = [kind for kind, names in families.items() if held.keys() & names]
    if len(found) > 1 and MAGNITUDE in held:
        hint = "merge it with the tool that made it"
        raise refusal(name, f"is {found[0]} with a magnitude, which PEFT has for LoRA only", hint)
    if len(found) > 1:
        raise broken(name, f"has tensors of {' and '.join(found)}", "TEN002")
    module = Module(name, found[0], held, alpha)
    if found[0] == "LORA":
        _check(module)
    return module


def _check(module: Module) -> None:
    name, tensors = module.name, module.tensors
    if A not in tensors or B not in tensors:
        raise broken(name, "has one factor without the other", "TEN002")
    a, b = tensors[A].shape, tensors[B].shape
    shapes = f"{list(a)} and {list(b)}"
    mid = tensors[MID].shape if MID in tensors else None
    if mid is not None:
        shapes += f", in the middle {list(mid)}"
        if len(mid) < 3 or mid[:2] != (a[0],) * 2 or set(a[2:]) - {1} or len(a) != len(mid):
            raise broken(name, f"has factors of shapes {shapes}, which do not fit", "TEN004")
    if len(a) not in {2, 3, 4, 5} or len(a) != len(b) or a[0] != b[1] or 0 in a + b:
        raise broken(name, f"has factors of shapes {shapes}, which do not fit", "TEN004")
    if set(b[2:]) - {1}:
        raise refusal(name, f"has a kernel in its second factor: {shapes}", "merge it")
