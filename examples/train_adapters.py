"""Train the two adapters of the example: `de-lang` (a language) and `search-task` (a task).

    sh examples/get_inputs.sh inputs
    python examples/train_adapters.py --inputs inputs

Both are plain LoRA adapters of all-MiniLM-L6-v2, trained with a contrastive loss on manual pages.
They never see each other, nor the evaluation set. German questions against English summaries are
a job for which neither was trained: it takes the language of one and the task of the other.
"""

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from base import BASE_NAME, find_base
from embed import Tokenizer, embed_batch, load_base
from manpages import Page, aligned_paragraphs, read_pages
from score import HERE, Split, load_evaluation, score

Pair = tuple[str, str]

SHORTEST, LONGEST = 15, 130
# Batches of similar length waste little on padding; this many batches are sorted together.
POOL = 12
MOST_SHARED = 0.25
_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-ZÄÖÜ])")
# The subject of a page's first sentence: "The f() and g() functions", "The file /etc/f", ...
_SUBJECT = re.compile(
    r"(?:The\s+)?(?:"
    r"(?:[\w/.*-]+\(\)(?:,\s|\s+and\s+|\s+or\s+)?)+"
    r"(?:\s*(?:library )?(?:functions?|system calls?|macros?))?"
    r"|(?:file\s+)?[\w/.*-]+(?:\s+(?:files?|devices?|command))?"
    r"|(?:functions?|macros?)\s+[\w()]+"
    r")\s+(?=[a-z]+s\b)"
)
_ASKED_FOR = {
    "1": "Which command",
    "2": "Which system call",
    "3": "Which function",
    "4": "Which device",
    "5": "Which file",
    "7": "What",
    "8": "Which command",
}
_OPENINGS = ("How do I", "How can I", "What do I use to", "How does a program")
_NO_ACTION = frozenset({"is", "has", "was", "does"})
_HISSING = ("sses", "shes", "ches", "xes", "zzes")


@dataclass(frozen=True)
class Training:
    """What one adapter is trained with."""

    pairs: Callable[[Path], list[Pair]]
    config: LoraConfig
    seed: int
    learning_rate: float
    epochs: int
    batch_size: int = 64
    max_tokens: int = 64
    temperature: float = 0.05


def language_pairs(inputs: Path) -> list[Pair]:
    """German paragraphs and sentences with their English originals."""
    english, german = _manuals(inputs)
    pairs: dict[Pair, None] = {}
    for path in sorted(english.keys() & german.keys()):
        if german[path].summary and english[path].summary:
            pairs[german[path].summary, english[path].summary] = None
        for pair in aligned_paragraphs(english[path], german[path]):
            pairs.update(dict.fromkeys(_sentences(pair)))
    return [pair for pair in pairs if _usable(pair)]


def search_pairs(inputs: Path) -> list[Pair]:
    """English questions and descriptions with the one-line summary of the page they stem from."""
    english, _ = _manuals(inputs)
    pairs: dict[Pair, None] = {}
    for page in english.values():
        sentences = _SENTENCE_END.split(" ".join(page.paragraphs("DESCRIPTION")[:1]))
        for query in (sentences[0], *_questions(page, sentences[0])):
            pairs[_without_names(page, query), page.summary] = None
    return [pair for pair in pairs if pair[1] and len(pair[0]) >= SHORTEST]


TRAININGS = {
    "de-lang": Training(
        language_pairs,
        LoraConfig(
            r=12,
            lora_alpha=24,
            target_modules=["value", "intermediate.dense", "output.dense"],
            lora_dropout=0.0,
        ),
        seed=11,
        learning_rate=2e-3,
        epochs=6,
    ),
    "search-task": Training(
        search_pairs,
        LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules=["query", "key", "attention.output.dense"],
            lora_dropout=0.05,
        ),
        seed=12,
        learning_rate=3e-4,
        epochs=2,
    ),
}


def train(training: Training, base: Path, inputs: Path) -> PeftModel:
    """Train one adapter; the same inputs, seed and machine give the same bits."""
    torch.manual_seed(training.seed)
    torch.use_deterministic_algorithms(True)
    shuffle = random.Random(training.seed)  # noqa: S311 - an order of batches, not a secret
    model, tokenizer = load_base(base)
    adapted = cast(PeftModel, get_peft_model(model, training.config))
    pairs = training.pairs(inputs)
    batches = [b for _ in range(training.epochs) for b in _batches(pairs, training, shuffle)]
    optimiser = torch.optim.AdamW(
        [parameter for parameter in adapted.parameters() if parameter.requires_grad],
        lr=training.learning_rate,
        weight_decay=0.01,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, training.learning_rate, total_steps=len(batches), pct_start=0.1
    )
    adapted.train()
    for step, batch in enumerate(batches):
        # bfloat16 halves the time on current processors; the factors themselves stay float32.
        with torch.autocast("cpu", torch.bfloat16):
            loss = _loss(adapted, tokenizer, batch, training)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            print(f"  step {step}/{len(batches)}  loss {loss.item():.3f}", file=sys.stderr)
    return adapted.eval()


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


def report(names: Sequence[str], base: Path, output: Path) -> None:
    """Print the scores of the base alone and with each adapter, loaded by PEFT."""
    evaluation = load_evaluation()
    splits: tuple[Split, ...] = ("dev", "held_out")
    for name in ("base", *names):
        model, tokenizer = load_base(base)
        if name != "base":
            model = PeftModel.from_pretrained(model, output / name).eval()
        scores = (f"{split}: {score(model, tokenizer, evaluation, split)}" for split in splits)
        print(f"{name:12}", *scores, sep="  ")


def _loss(
    model: nn.Module, tokenizer: Tokenizer, batch: Sequence[Pair], training: Training
) -> Tensor:
    """InfoNCE both ways: each text must find its partner among those of the batch."""
    left, right = (
        embed_batch(model, tokenizer, side, training.max_tokens)
        for side in zip(*batch, strict=True)
    )
    logits = left @ right.T / training.temperature
    partner = torch.arange(len(batch))
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(logits, partner) + cross_entropy(logits.T, partner)) / 2


def _batches(pairs: Sequence[Pair], training: Training, shuffle: random.Random) -> list[list[Pair]]:
    """One epoch of full batches in random order, in which no right-hand text occurs twice.

    A repeated partner would be punished as a wrong answer, so its pair is left to a later epoch.
    """
    shuffled = shuffle.sample(pairs, len(pairs))
    batches = []
    for start in range(0, len(shuffled), POOL * training.batch_size):
        pool = sorted(shuffled[start : start + POOL * training.batch_size], key=_length)
        batch: dict[str, Pair] = {}
        for pair in pool:
            batch.setdefault(pair[1], pair)
            if len(batch) == training.batch_size:
                batches.append(list(batch.values()))
                batch = {}
    shuffle.shuffle(batches)
    return batches


def _length(pair: Pair) -> int:
    return len(pair[0]) + len(pair[1])


def _manuals(inputs: Path) -> tuple[dict[str, Page], dict[str, Page]]:
    folder = inputs / "man/usr/share/man"
    english, german = read_pages(folder), read_pages(folder / "de")
    if not english or not german:
        raise SystemExit(f"no manual pages in {folder}; run: sh examples/get_inputs.sh {inputs}")
    return english, german


def _sentences(pair: Pair) -> list[Pair]:
    """Split both sides into sentences where the translation kept their number."""
    german, english = (_SENTENCE_END.split(side) for side in pair)
    return list(zip(german, english, strict=True)) if len(german) == len(english) else [pair]


def _usable(pair: Pair) -> bool:
    # Names and numbers are equal in both languages. Where they make up much of a text, partners
    # are found by them alone, and the pair teaches nothing about the language.
    german, english = (set(_WORD.findall(side.lower())) for side in pair)
    fits = all(SHORTEST <= len(side) <= LONGEST for side in pair)
    return fits and len(german & english) <= MOST_SHARED * min(len(german), len(english))


def _questions(page: Page, sentence: str) -> list[str]:
    """Turn "The f() function returns the size." into questions for what returns the size."""
    subject = _SUBJECT.match(sentence)
    if not subject:
        return []
    predicate = sentence[subject.end() :].rstrip(".:")
    questions = [f"{_ASKED_FOR.get(page.section, 'What')} {predicate}?"]
    verb, _, rest = predicate.partition(" ")
    if verb not in _NO_ACTION:
        # The page's name decides the wording, so that every run asks the same way.
        opening = _OPENINGS[sum(map(ord, page.names[0])) % len(_OPENINGS)]
        questions.append(f"{opening} {_infinitive(verb)} {rest}?")
    return questions


def _infinitive(verb: str) -> str:
    if verb.endswith("ies"):
        return f"{verb[:-3]}y"
    return verb.removesuffix("es") if verb.endswith(_HISSING) else verb.removesuffix("s")


def _without_names(page: Page, text: str) -> str:
    """Take out the names of the page: whoever searches does not know them yet."""
    for name in page.names:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?:\(\)|\(\d\))?(?!\w)", "", text)
    return " ".join(text.split())


def main() -> None:
    """Train and score the adapters named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"adapters to train, of {', '.join(TRAININGS)}")
    parser.add_argument("--inputs", type=Path, default=Path("inputs"), help="see get_inputs.sh")
    parser.add_argument("--output", type=Path, default=HERE / "adapters")
    parser.add_argument("--threads", type=int, default=2, help="fixed: it decides the last bits")
    parser.add_argument("--score", action="store_true", help="only score what --output holds")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names, base = arguments.names or list(TRAININGS), find_base()
    if not arguments.score:
        for name in names:
            start = time.monotonic()
            save(train(TRAININGS[name], base, arguments.inputs), arguments.output / name)
            print(f"{name}: {(time.monotonic() - start) / 60:.1f} minutes")
    report(names, base, arguments.output)


if __name__ == "__main__":
    main()
