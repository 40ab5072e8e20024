"""Train the two adapters of the example: `de-lang` (a language) and `search-task` (a task).

    sh examples/get_inputs.sh inputs
    python examples/train_adapters.py --inputs inputs
    python examples/train_adapters.py --score

Both are plain LoRA adapters of all-MiniLM-L6-v2, trained on manual pages. They never see each
other, nor the evaluation set. German questions against English summaries are a job for which
neither was trained: it takes the language of one and the task of the other.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from base import BASE_NAME, find_base
from embed import Tokenizer, load_base
from objectives import Objective, answer_questions, keep_meaning
from rankloom import sdk
from score import HERE, Language, Score, Split, bootstrap_interval, load_evaluation, reciprocal
from score import score as score_of

WEIGHTS = ((0, 0), (1, 0), (0, 1), (1, 1), (1, 0.5), (0.5, 1), (0.7, 1), (1, 0.7))
ASKED: tuple[tuple[Split | None, Language], ...] = (
    ("dev", "german"),
    ("held_out", "german"),
    (None, "german"),
    ("dev", "english"),
    ("held_out", "english"),
    (None, "english"),
)


@dataclass(frozen=True)
class Training:
    """What one adapter is trained with."""

    objective: Callable[[Path, nn.Module, Tokenizer, random.Random], Objective]
    config: LoraConfig
    seed: int
    learning_rate: float
    steps: int


TRAININGS = {
    "de-lang": Training(
        keep_meaning,
        LoraConfig(
            r=12,
            lora_alpha=24,
            target_modules=["value", "intermediate.dense", "output.dense"],
        ),
        seed=11,
        learning_rate=3e-3,
        steps=500,
    ),
    "search-task": Training(
        answer_questions,
        LoraConfig(
            r=8,
            lora_alpha=16,
            target_modules=["query", "key", "value", "attention.output.dense"],
        ),
        seed=12,
        learning_rate=1e-3,
        steps=150,
    ),
}


def train(training: Training, base: Path, inputs: Path, steps: int) -> PeftModel:
    """Train one adapter; the same inputs, seed, threads and machine give the same bits."""
    torch.manual_seed(training.seed)
    torch.use_deterministic_algorithms(True)
    model, tokenizer = load_base(base)
    # bfloat16 halves the time on current processors; the factors themselves stay float32.
    with torch.autocast("cpu", torch.bfloat16):
        choose = random.Random(training.seed)  # noqa: S311 - an order of batches, not a secret
        objective = training.objective(inputs, model, tokenizer, choose)
    adapted = cast(PeftModel, get_peft_model(model, training.config))
    optimiser = torch.optim.AdamW(
        [parameter for parameter in adapted.parameters() if parameter.requires_grad],
        lr=training.learning_rate,
        weight_decay=0.01,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, training.learning_rate, total_steps=steps, pct_start=0.1
    )
    # The base stays in evaluation mode: without its dropout the targets are reached sooner.
    for step in range(steps):
        with torch.autocast("cpu", torch.bfloat16):
            loss = objective(adapted)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            print(f"  step {step}/{steps}  loss {loss.item():.3f}", file=sys.stderr)
    return adapted


def save(adapted: PeftModel, folder: Path) -> None:
    """Write the adapter as PEFT does, naming the base as the world knows it."""
    config = cast(LoraConfig, adapted.peft_config["default"])
    # PEFT takes the base's name from where it was loaded: a path that only this machine has.
    config.base_model_name_or_path = BASE_NAME
    # PEFT holds the targets as a set, whose order differs between runs.
    config.target_modules = sorted(config.target_modules or ())
    folder.mkdir(parents=True, exist_ok=True)
    # By way of another folder: PEFT would rewrite the card beside the adapter.
    with tempfile.TemporaryDirectory() as written:
        adapted.save_pretrained(written)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(Path(written) / name, folder / name)


def report(output: Path, base: Path) -> None:
    """Print the scores of the base, of each adapter and of compositions of the two."""
    evaluation = load_evaluation()
    model, tokenizer = load_base(base)
    folders = [str(output / name) for name in TRAININGS]
    for weights in WEIGHTS:
        used = [pair for pair in zip(folders, weights, strict=True) if pair[1]]
        with ExitStack() as stack:
            if used:
                composition = sdk.compose([f for f, _ in used], weights=[w for _, w in used])
                stack.enter_context(composition.apply(model))
            for split, language in ASKED:
                result = score_of(model, tokenizer, evaluation, split, language)
                print(f"{weights!s:11} {language:8} {split or 'all':9} {_with_interval(result)}")


def _with_interval(result: Score) -> str:
    low, high = bootstrap_interval([reciprocal(rank) for rank in result.ranks])
    return f"{result}  [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Train the adapters named on the command line, all by default, or score both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"adapters to train, of {', '.join(TRAININGS)}")
    parser.add_argument("--inputs", type=Path, default=Path("inputs"), help="see get_inputs.sh")
    parser.add_argument("--output", type=Path, default=HERE / "adapters")
    parser.add_argument("--threads", type=int, default=1, help="fixed: it decides the last bits")
    parser.add_argument("--steps", type=int, help="fewer steps than usual, for a quick try")
    parser.add_argument("--score", action="store_true", help="score what --output holds instead")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    base = find_base()
    if arguments.score:
        report(arguments.output, base)
        return
    for name in arguments.names or TRAININGS:
        training, start = TRAININGS[name], time.monotonic()
        adapted = train(training, base, arguments.inputs, arguments.steps or training.steps)
        save(adapted, arguments.output / name)
        print(f"{name}: {(time.monotonic() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
