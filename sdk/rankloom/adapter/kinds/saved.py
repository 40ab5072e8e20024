"""Parameters that were saved whole, and take the place of the base's.

* ``modules_to_save``: every tensor of the module under its plain key (``score.weight``), in older
  files with ``.modules_to_save.<adapter>`` in it;
* ``bias`` of ``"all"`` or ``"<type>_only"``: ``<module>.base_layer.bias`` where the module is
  targeted, else ``<module>.bias``;
* embeddings, which PEFT saves where they are targeted or the vocabulary grew:
  ``<module>.base_layer.weight``, or the plain key. These are the base's own values, which PEFT
  loads into the base, so they reach what is tied to it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Replacement, Rows, Target
from rankloom.adapter.config import FILE
from rankloom.adapter.kinds import factors
from rankloom.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Tensors
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.tensorfile.header import TensorEntry

OPTIONS = frozenset(["bias", "modules_to_save"])

_COPY = re.compile(r"\.modules_to_save(\.[^.]+)?(?=\.)")
_ORIGINAL = ".original_module."
_BASE = ".base_layer."
_COUNTER = ".num_batches_tracked"
"""What a batch norm counts in training; PEFT cannot load a saved one without it."""
_EMBEDDINGS = frozenset(
    [
        *("embed_tokens", "lm_head", "wte", "shared", "word_embeddings", "embed_in", "embed_out"),
        *("tok_embeddings", "token_embedding", "input_embeds_layer", "codec_embedding", "lm_loss"),
        *("output_projection", "proj_out", "vocab_projector", "generator_lm_head"),
    ]
)
"""Names that the classes of transformers give to input embeddings and language-model heads."""
_HEADS = frozenset(["lm_head", "lm_heads", "predictions", "mlm_score"])
"""Names of modules whose part ``decoder`` or ``out_proj`` is the head."""

_AUTOMATIC = frozenset(["classifier", "score", "qa_outputs"])
"""Modules that PEFT adds by ``task_type``, whether the model has them or not."""


def read(config: AdapterConfig, tensors: Tensors) -> Reading:
    """Return a target for every saved parameter, once each."""
    if wrong := list(_check_options(config)):
        return factors.reading(wrong, ())
    modules = tuple(config.options.get("modules_to_save") or ())
    results: list[Target | Finding] = []
    taken, copies, names = list[str](), list[str](), set[str]()
    for key in sorted(tensors):
        name = _plain(tensors, key)
        if not _is_explained(config, modules, key, name):
            continue
        taken.append(key)
        if key != name and (name in tensors or _ORIGINAL in key):
            copies.append(key)
            continue
        if wrong := list(_check(tensors[key])):
            results += wrong
            continue
        names.add(name)
        results.append(_target(tensors, key, name, is_bias=not _is_within(name, modules)))
    embeddings = [n for n in names if n.endswith(".weight") and _is_embedding(n)]
    if len(embeddings) == 1 and not _is_within(embeddings[0], modules):
        results = [_spread(item, embeddings[0]) for item in results]
    results += [*_left_out(copies), *_missing(config, modules, names)]
    return factors.reading(results, taken)


def with_rows(targets: Iterable[Target]) -> list[Target]:
    """Return targets in which the trained rows of a saved embedding are part of its replacement."""
    found = list(targets)
    rows = {target.name: target.change for target in found if isinstance(target.change, Rows)}
    whole = {target.name for target in found if isinstance(target.change, Replacement)}
    kept = (t for t in found if not (isinstance(t.change, Rows) and t.name in whole))
    return [_joined(target, rows.get(target.name)) for target in kept]


def with_base(targets: Iterable[Target]) -> list[Target]:
    """Return targets in which a change that depends on a saved parameter depends on the file."""
    found = list(targets)
    whole = {
        target.name: target.change.value
        for target in found
        if isinstance(target.change, Replacement) and target.change.rows is None
    }
    return [_based(target, whole.get(target.name)) for target in found]


def _based(target: Target, value: TensorEntry | None) -> Target:
    change = target.change
    if value is None or not isinstance(change, Computed) or not change.needs_base:
        return target
    return replace(target, change=replace(change, base=value, needs_base=False))


def _joined(target: Target, rows: Rows | None) -> Target:
    if rows is None or not isinstance(target.change, Replacement):
        return target
    return replace(target, change=replace(target.change, rows=rows))


def _spread(item: Target | Finding, name: str) -> Target | Finding:
    if isinstance(item, Target) and item.name == name and isinstance(item.change, Replacement):
        return replace(item, change=replace(item.change, spreads=True))
    return item


def _target(tensors: Tensors, key: str, name: str, *, is_bias: bool) -> Target:
    module, _, parameter = name.rpartition(".")
    kind = "bias" if parameter == "bias" and is_bias else "saved"
    return Target(module, kind, Replacement(tensors[key]), parameter)


def _check_options(config: AdapterConfig) -> Iterator[Finding]:
    bias, modules = (config.options.get(name) for name in ("bias", "modules_to_save"))
    if bias is not None and bias not in {"none", "all"} and not str(bias).endswith("_only"):
        message = f"{FILE}: bias is {bias!r:.80}, not 'none', 'all' or '…_only'"
        yield Finding("CFG001", message, where="bias", fix="save the adapter again with PEFT")
    is_list = isinstance(modules, list) and all(isinstance(name, str) for name in modules)
    if modules is not None and not is_list:
        message = f"{FILE}: modules_to_save is {modules!r:.80}, not a list of names"
        yield Finding("CFG001", message, where="modules_to_save", fix="save it again with PEFT")


def _plain(tensors: Tensors, key: str) -> str:
    """Return the name that the parameter of a key has in the base."""
    short = key.replace(_ORIGINAL, ".").replace(".token_adapter.", ".").replace(_BASE, ".")
    if not _COPY.search(short):
        return short
    # Behind modules_to_save stands the adapter's name, unless saving removed it.
    named = _COPY.sub("", short)
    unnamed = short.replace(".modules_to_save", "")
    return unnamed if unnamed in tensors or named == unnamed else named


def _is_within(name: str, modules: tuple[str, ...]) -> bool:
    """Tell whether a parameter is of a module that is saved whole, or of a part of one.

    PEFT compares ends of names here: ``norm`` names ``final_norm`` too.
    """
    return any(f"{module}." in name for module in modules)


def _is_explained(config: AdapterConfig, modules: tuple[str, ...], key: str, name: str) -> bool:
    """Tell whether the config, or PEFT's rule for embeddings, says why a tensor is there."""
    if any(part.startswith(("lora_", "trainable_tokens")) for part in key.split(".")):
        return False
    is_bias = name.endswith(".bias")
    return (
        _is_within(name, modules)
        or (is_bias and config.options.get("bias") is not None)
        or _is_embedding(name)
        or (_BASE in key and (is_bias or name.endswith(".weight")))
    )


def _is_embedding(name: str) -> bool:
    """Tell whether a parameter is of an embedding or a language-model head, by its name."""
    owner, module, parameter = ("", "", *name.split("."))[-3:]
    return parameter in {"weight", "bias"} and (module in _EMBEDDINGS or owner in _HEADS)


def _check(entry: TensorEntry) -> Iterator[Finding]:
    if not (entry.name.endswith(_COUNTER) and entry.dtype == "I64"):
        yield from factors.check_dtype(entry)


def _left_out(copies: list[str]) -> Iterator[Finding]:
    """Yield what was left out: what is there under its plain key too, and the base's own values."""
    if copies:
        message = (
            f"{copies[0]} and {len(copies) - 1} more repeat other tensors or the base: left out"
        )
        yield Finding("TEN009", message, Severity.INFO, where=copies[0])


def _missing(config: AdapterConfig, modules: tuple[str, ...], names: set[str]) -> Iterator[Finding]:
    """Yield warnings about what the config says was trained and the file does not hold."""
    absent = [
        name
        for name in modules
        if name not in _AUTOMATIC and not any(_is_within(found, (name,)) for found in names)
    ]
    if absent:
        message = f"{FILE}: modules_to_save names modules without tensors: {', '.join(absent)}"
        yield Finding("CFG006", message, Severity.WARNING, where="modules_to_save")
    bias = config.options.get("bias")
    if bias is not None and not any(name.endswith(".bias") for name in names):
        message = f"{FILE}: bias is {bias!r}, but the file holds no bias"
        fix = "right if the targeted layers have none; PEFT before 0.9 lost them otherwise"
        yield Finding("CFG007", message, Severity.WARNING, where="bias", fix=fix)
