"""The main job from end to end on a real model: push, validate, tune, apply, score, refuse.

Run it with ``make demo``. Everything it keeps lies in ``.demo/``, which it empties first.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers.utils import logging

from base import find_base
from embed import Tokenizer, load_base
from rankloom import sdk
from rankloom.errors import RankloomError
from score import (
    EvaluationSet,
    Score,
    Split,
    bootstrap_interval,
    hit,
    load_evaluation,
    reciprocal,
    scores,
)

HERE = Path(__file__).resolve().parent
WORK = Path(".demo")
BASE = WORK / "minilm"
RECIPE = WORK / "found.yaml"
ADAPTERS = ("de-lang", "search-task")
WEIGHTS = ((1.0, 0.0), (0.0, 1.0), (1.0, 0.5), (0.5, 1.0), (1.0, 1.0), (0.5, 0.5))
TRIALS = 20


def main() -> None:
    """Run every step; an unexpected outcome of any of them ends the demo with an error."""
    started = time.monotonic()
    logging.disable_progress_bar()
    os.chdir(HERE.parent)
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    BASE.symlink_to(find_base())
    os.environ["RANKLOOM_HOME"] = str(WORK / "home")
    os.environ.pop("RANKLOOM_URL", None)  # the demo works on the embedded registry only

    title("Push two adapters; each is tied to the fingerprint of its base")
    loractl("base", "add", f"./{BASE}")
    for name in ADAPTERS:
        folder = f"./examples/adapters/{name}"
        loractl("push", folder, name, "--base", "minilm", "--alias", "prod")
    loractl("list")

    title("Validate against the base, byte for byte")
    for name in ADAPTERS:
        loractl("validate", name, "--against", f"./{BASE}")

    title("Find weights on one half of the questions, and judge them on the other")
    evaluation = load_evaluation()
    model, tokenizer = load_base(BASE)
    found = find_weights(model, tokenizer, evaluation)

    title("Apply what was found, score: which summary answers a question?")
    merged = WORK / "merged"
    loractl("apply", f"./{RECIPE}", "--base", f"./{BASE}", "-o", str(merged))
    report_scores(model, tokenizer, evaluation, found, merged)

    title("Refuse what would go wrong silently")
    refuse_another_base()
    refuse_nan()
    refuse_corrupted_blob()
    print(f"\nDone in {time.monotonic() - started:.0f} s. Everything lies in {WORK}.")


def title(text: str) -> None:
    """Print the heading of a step."""
    print(f"\n== {text}", flush=True)


def loractl(*arguments: str) -> None:
    """Run the command as a person would, and show it."""
    print("$ loractl", *arguments, flush=True)
    command = Path(sys.executable).with_name("loractl")
    subprocess.run([command, *arguments], check=True)  # noqa: S603 - our own command


@dataclass(frozen=True)
class Scores:
    """How well a model answers the same questions in both languages."""

    german: Score
    english: Score


def find_weights(
    model: nn.Module, tokenizer: Tokenizer, evaluation: EvaluationSet
) -> tuple[float, ...]:
    """Search weights, say how good they are, and write them as a recipe."""

    def mrr(split: Split) -> Callable[[nn.Module], list[float]]:
        """Score each question by its mean MRR in both languages."""
        return lambda found: [
            (reciprocal(german) + reciprocal(english)) / 2
            for german, english in zip(
                *(result.ranks for result in scores(found, tokenizer, evaluation, split)),
                strict=True,
            )
        ]

    started = time.monotonic()
    tuned = sdk.tune(
        ADAPTERS,
        evaluate=mrr("dev"),
        held_out=mrr("held_out"),
        base=BASE,
        model=model,
        trials=TRIALS,
        journal=WORK / "tune.jsonl",
    )
    print(f"{TRIALS} compositions in {time.monotonic() - started:.0f} s\n")
    for row in (tuned.columns, *tuned.table()):
        print(
            "  ".join(f"{cell:34}" if not place else f"{cell:26}" for place, cell in enumerate(row))
        )
    print(f"\n{tuned.verdict}")
    tuned.save(RECIPE)
    (WORK / "tune.svg").write_text(tuned.plot())
    if tuned.best is None:
        raise SystemExit("no composition of both was tried")
    return tuned.best.weights


def ask(model: nn.Module, tokenizer: Tokenizer, evaluation: EvaluationSet) -> Scores:
    """Ask every question in German and in English."""
    return Scores(*scores(model, tokenizer, evaluation))


def report_scores(
    model: nn.Module,
    tokenizer: Tokenizer,
    evaluation: EvaluationSet,
    best: tuple[float, ...],
    merged: Path,
) -> None:
    """Print one table: the base, each part, compositions at several weights, and the merge."""
    plain = ask(model, tokenizer, evaluation)
    print(f"\n{'acc@1 with its 95 % interval':36}  German                  English")
    show("base alone", plain)
    wanted = dict.fromkeys((*WEIGHTS, best))
    found = {weights: applied(model, tokenizer, evaluation, weights) for weights in wanted}
    for weights, result in found.items():
        show(label(weights), result)
    if ask(model, tokenizer, evaluation) != plain:
        raise SystemExit("the model differs after the last composition was taken back")
    loaded, _ = load_base(merged)
    written = ask(loaded, tokenizer, evaluation)
    if written != found[best]:
        raise SystemExit("the merged checkpoint scores other than the applied composition")
    show(f"checkpoint {merged}", written)


def label(weights: Sequence[float]) -> str:
    """Name a composition by its parts, e.g. ``0.5 de-lang + 1 search-task``."""
    named = zip(weights, ADAPTERS, strict=True)
    return " + ".join(f"{weight:g} {name}" for weight, name in named if weight)


def applied(
    model: nn.Module, tokenizer: Tokenizer, evaluation: EvaluationSet, weights: Sequence[float]
) -> Scores:
    """Score the model while a composition is applied; afterwards it is as it was, to the bit."""
    used = [(name, weight) for name, weight in zip(ADAPTERS, weights, strict=True) if weight]
    composition = sdk.compose([name for name, _ in used], weights=[weight for _, weight in used])
    with composition.apply(model):
        return ask(model, tokenizer, evaluation)


def show(name: str, result: Scores) -> None:
    """Print one row of the table."""
    print(f"{name:36}  {interval(result.german)}    {interval(result.english)}", flush=True)


def interval(result: Score) -> str:
    """Return the accuracy with its bootstrap interval."""
    low, high = bootstrap_interval([hit(rank) for rank in result.ranks])
    return f"{result.accuracy:.3f} [{low:.3f}, {high:.3f}]"


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Expect that the block is refused, and show with which words."""
    try:
        yield
    except RankloomError as error:
        print(f"{what}:\n  {error.code}: {error.message}")
        for finding in error.findings[:1]:
            print(f"  {finding}")
    else:
        raise SystemExit(f"{what} was not refused")


def refuse_another_base() -> None:
    """Same shapes, other weights: every other tool merges into this without a word."""
    other = WORK / "another-base"
    shutil.copytree(BASE, other)
    flip_byte(other / "model.safetensors", -1)
    with refused("A base with the same shapes and one other byte"):
        sdk.compose(["de-lang"]).apply_to(other, WORK / "never")
    if (WORK / "never").exists():
        raise SystemExit("a refused apply left something behind")


def refuse_nan() -> None:
    """One NaN in one factor would spread over the whole model."""
    broken = WORK / "nan"
    shutil.copytree(HERE / "adapters/de-lang", broken)
    weights = broken / "adapter_model.safetensors"
    overwrite(weights, lambda data: data[:-4] + b"\x00\x00\xc0\x7f")
    with refused("An adapter with one NaN"):
        sdk.push(broken, "de-lang", base="minilm")


def refuse_corrupted_blob() -> None:
    """A bit that rotted in the store must not reach anybody."""
    version = sdk.resolve("search-task")
    entry = next(item for item in version.manifest.files if item.path.endswith(".safetensors"))
    shutil.rmtree(WORK / "home/cache")
    stored = next((WORK / "home/registry").rglob(entry.digest.removeprefix("sha256:")))
    stored.chmod(0o644)
    flip_byte(stored, len(stored.read_bytes()) // 2)
    with refused("A blob with one flipped byte in the store"):
        sdk.pull("search-task", WORK / "never")


def flip_byte(path: Path, position: int) -> None:
    """Change one byte of a file in place."""

    def flip(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[position] ^= 1
        return bytes(changed)

    overwrite(path, flip)


def overwrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace a file's content by a function of it."""
    path.write_bytes(change(path.read_bytes()))


if __name__ == "__main__":
    main()
