"""Which files of an adapter's folder belong to a version, which are left out, which are refused."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.finding import Finding, Severity
from rankloom.manifest import RECORD
from rankloom.ref import is_reserved

if TYPE_CHECKING:
    from pathlib import Path

TENSORS = "adapter_model.safetensors"

_BELONGS = re.compile(
    r"adapter_config\.json|adapter_model\.safetensors|README\.md|(?:LICENSE|NOTICE)[\w.-]*"
    r"|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(?:json|txt)|merges\.txt|chat_template\.(?:jinja|json)"
    r"|tokenizer\.model|spiece\.model|sentencepiece\.bpe\.model"
    r"|(?:pre)?processor_config\.json|generation_config\.json",
    re.ASCII,
)
# What transformers' Trainer, accelerate, DeepSpeed, LLaMA-Factory and the tools around leave beside
# an adapter. None of it changes what the adapter means, and much of it is pickle.
_LEFTOVER = re.compile(
    r"optimizer\.(?:pt|bin)|scheduler\.pt|scaler\.pt|rng_state(?:_\d+)?\.pth|training_args\.(?:bin|json)"
    r"|trainer_state\.json|trainer_log\.jsonl|(?:train|eval|all|predict)_results\.json"
    r"|training_(?:eval_)?\w+\.png|optimizer_\d+|pytorch_model_fsdp_\d+|(?:optimizer|pytorch_model_fsdp)\.bin"
    r"|zero_to_fp32\.py|latest|global_step\d+|checkpoint-\d+|runs|events\.out\.tfevents\.[\w.-]+|wandb"
    r"|config\.json|\.gitattributes|\.gitignore|\.git|\.cache|\.DS_Store|__pycache__"
    r"|\.ipynb_checkpoints",
    re.ASCII,
)
_CODE = re.compile(r".*\.(?:bin|pt|pth|pkl|pickle|ckpt|py|so|dll|sh|exe|npy|joblib)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Listing:
    """The content of a folder: files of the version in name order, and what was found."""

    files: tuple[Path, ...]
    findings: tuple[Finding, ...]


def listing(folder: Path) -> Listing:
    """Sort the entries of an adapter's folder; nothing is opened."""
    files: list[Path] = []
    findings: list[Finding] = []
    entries = sorted(folder.iterdir())
    for entry in entries:
        if _LEFTOVER.fullmatch(entry.name):
            findings.append(_left_out(entry))
        elif finding := _refusal(folder, entry):
            findings.append(finding)
        elif entry.name != RECORD:
            files.append(entry)
    findings += _collisions(entries)
    return Listing(tuple(files), tuple(findings))


def _left_out(entry: Path) -> Finding:
    message = f"{entry.name} is left out: it is of the training, not of the adapter"
    return Finding("SEC001", message, Severity.INFO, where=entry.name)


def _refusal(folder: Path, entry: Path) -> Finding | None:
    if (leads := _odd(entry) or _leads_out(folder, entry)) is not None:
        return leads
    if entry.name == RECORD or (_BELONGS.fullmatch(entry.name) and entry.is_file()):
        return None
    return Finding("SEC001", *_describe(entry))


def _describe(entry: Path) -> tuple[str, Severity, str, str]:
    name = entry.name
    if name.startswith("adapter_model."):
        what = f"{name} holds the weights as pickle, which runs code when it is loaded"
        fix = "'loractl convert FOLDER -o OUT --allow-pickle', or save it as safetensors again"
    elif _CODE.fullmatch(name):
        what = f"{name} can run code when it is loaded, so no version holds such files"
        fix = "remove it from the folder"
    elif entry.is_dir():
        what = f"{name}/ is a folder; an adapter has its files in one"
        fix = "if it is another adapter (PEFT saves each into its own folder), give its path"
    else:
        what = f"{name[:80]!r} is not a file that belongs to an adapter"
        fix = "remove it from the folder, or put what it says into README.md"
    return what, Severity.ERROR, name, fix


def _odd(entry: Path) -> Finding | None:
    """Return a finding for a name that other systems cannot have, or that shows as another."""
    if entry.name.isprintable() and not is_reserved(entry.name):
        return None
    what = f"{ascii(entry.name)[:80]} is no file name on every system, or shows as another one"
    return Finding("SEC004", what, where=ascii(entry.name)[1:-1], fix="rename it")


def _leads_out(folder: Path, entry: Path) -> Finding | None:
    """Return a finding for a link out of the folder, and for what is neither file nor folder."""
    try:
        mode = entry.stat().st_mode
        inside = entry.resolve().is_relative_to(folder.resolve())
    except OSError:
        mode, inside = 0, False
    if inside and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return None
    what = "leads out of the folder" if not inside else "is neither a file nor a folder"
    fix = "copy the folder with its links followed: cp -rL FOLDER COPY"
    return Finding("SEC004", f"{entry.name} {what}", where=entry.name, fix=fix)


def _collisions(entries: list[Path]) -> list[Finding]:
    seen: dict[str, str] = {}
    findings = []
    for entry in entries:
        other = seen.setdefault(entry.name.casefold(), entry.name)
        if other != entry.name:
            message = f"{other} and {entry.name} are one file where case does not count"
            findings.append(Finding("SEC004", message, where=entry.name, fix="rename one of them"))
    return findings
