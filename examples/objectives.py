"""What each adapter is trained to do, as losses that draw their next batch with every call."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from embed import Tokenizer, embed, embed_batch
from pairs import Pair, language_pairs, search_entries

Objective = Callable[[nn.Module], Tensor]
T = TypeVar("T")

BATCH = 64
# How many English originals go through the adapter beside each batch of German texts.
KEPT = 16
TEMPERATURE = 0.05
MAX_TOKENS = 64
LONGEST_GERMAN = 32
# Batches of similar length waste little on padding; this many batches are sorted together.
POOL = 12
HARDEST = 25
TOO_CLOSE = 0.85
MISSING = 0.25


def keep_meaning(
    inputs: Path, base: nn.Module, tokenizer: Tokenizer, choose: random.Random
) -> Objective:
    """German texts shall lie where the base puts their English originals, and these shall stay.

    The base is the teacher, as in Reimers & Gurevych 2020 (arXiv:2004.09813), but each text must
    find its original among all originals, not just come near it: a cross-entropy over their
    fixed vectors, which is InfoNCE with the whole training set as negatives.
    """
    pairs = [p for p in language_pairs(inputs) if _tokens(tokenizer, p[0]) <= LONGEST_GERMAN]
    originals = list(dict.fromkeys(english for _, english in pairs))
    place = {text: index for index, text in enumerate(originals)}
    teacher = embed(base, tokenizer, originals).float().clone()
    batches = _endless(lambda: _batches(pairs, choose))

    def loss(model: nn.Module) -> Tensor:
        batch = next(batches)
        kept = [english for _, english in choose.sample(batch, KEPT)]
        german, english = zip(*batch, strict=True)
        vectors = torch.cat(
            [
                embed_batch(model, tokenizer, german, MAX_TOKENS),
                embed_batch(model, tokenizer, kept, MAX_TOKENS),
            ]
        )
        wanted = torch.tensor([place[text] for text in (*english, *kept)])
        return _cross_entropy(vectors, teacher, wanted)

    return loss


def answer_questions(
    inputs: Path, base: nn.Module, tokenizer: Tokenizer, choose: random.Random
) -> Objective:
    """Questions and statements shall find the summary of their page.

    They must tell it from the other summaries of the batch and from one more for each question:
    a summary that the base takes for a good answer (a hard negative).
    """
    entries = search_entries(inputs)
    summaries = list(dict.fromkeys(entry.summary for entry in entries))
    vectors = embed(base, tokenizer, summaries).float()
    asked = embed(base, tokenizer, [entry.queries[-1] for entry in entries]).float()
    place = {text: index for index, text in enumerate(summaries)}
    wrong = []
    for entry, row in zip(entries, asked @ vectors.T, strict=True):
        # What nearly says the same as the right summary would be no wrong answer.
        same = vectors @ vectors[place[entry.summary]] > TOO_CLOSE
        hardest = row.masked_fill(same, -1).topk(HARDEST).indices.tolist()
        wrong.append([summaries[index] for index in hardest])
    batches = _endless(lambda: _chunks(choose.sample(range(len(entries)), len(entries))))

    def loss(model: nn.Module) -> Tensor:
        batch = next(batches)
        queries = [_thinned(choose.choice(entries[index].queries), choose) for index in batch]
        right = [entries[index].summary for index in batch]
        candidates = list(dict.fromkeys((*right, *(choose.choice(wrong[i]) for i in batch))))
        wanted = torch.tensor([candidates.index(summary) for summary in right])
        left = embed_batch(model, tokenizer, queries, MAX_TOKENS)
        return _cross_entropy(left, embed_batch(model, tokenizer, candidates, MAX_TOKENS), wanted)

    return loss


def _thinned(text: str, choose: random.Random) -> str:
    """Leave out words at random: an answer must be found though part of a question is lost."""
    return " ".join(word for word in text.split() if choose.random() > MISSING) or text


def _cross_entropy(left: Tensor, right: Tensor, wanted: Tensor) -> Tensor:
    # Similarities need more than the eight bits of bfloat16: float32 also inside autocast.
    with torch.autocast("cpu", enabled=False):
        logits = left.float() @ right.float().T / TEMPERATURE
        return nn.functional.cross_entropy(logits, wanted)


def _batches(pairs: Sequence[Pair], choose: random.Random) -> list[list[Pair]]:
    """One epoch of full batches of similar length, in random order."""
    shuffled = choose.sample(pairs, len(pairs))
    batches = []
    for start in range(0, len(shuffled), POOL * BATCH):
        batches += _chunks(sorted(shuffled[start : start + POOL * BATCH], key=_length))
    choose.shuffle(batches)
    return batches


def _chunks(items: Sequence[T]) -> list[list[T]]:
    """Full batches in order; what is left over waits for another epoch."""
    return [list(items[i : i + BATCH]) for i in range(0, len(items) - BATCH + 1, BATCH)]


def _endless(epoch: Callable[[], list[T]]) -> Iterator[T]:
    while True:
        yield from epoch()


def _length(pair: Pair) -> int:
    return len(pair[0])


def _tokens(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer(text)["input_ids"])
