"""How well a model finds the English summary that answers a question, asked in German or English.

The candidates are all English summaries of the evaluation set and the distractors, whatever the
split: a split chooses the questions that are asked, never makes the task easier.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from embed import Tokenizer, embed

Split = Literal["dev", "held_out"]
Language = Literal["german", "english"]

HERE = Path(__file__).resolve().parent
MRR_DEPTH = 10


@dataclass(frozen=True)
class Question:
    """A German question, the same question in English, and the summary that answers it."""

    id: str
    split: Split
    question: str
    english: str
    summary: str

    def asked_in(self, language: Language) -> str:
        """The wording in `language`."""
        return self.english if language == "english" else self.question


@dataclass(frozen=True)
class EvaluationSet:
    """Questions and the candidates among which the answer is sought."""

    questions: tuple[Question, ...]
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """The rank of the right answer for each question (1 is best), and what follows from it."""

    ranks: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        """acc@1: share of questions whose answer came first."""
        return mean([hit(rank) for rank in self.ranks])

    @property
    def mrr(self) -> float:
        """MRR@10: mean of 1/rank, where ranks beyond ten count nothing."""
        return mean([reciprocal(rank) for rank in self.ranks])

    def __str__(self) -> str:
        """Both numbers, for tables."""
        return f"acc@1 {self.accuracy:.3f}  MRR@{MRR_DEPTH} {self.mrr:.3f}"


def hit(rank: int) -> float:
    """1 if the right answer came first, else 0."""
    return float(rank == 1)


def reciprocal(rank: int) -> float:
    """1/rank down to the tenth place, 0 below."""
    return 1 / rank if rank <= MRR_DEPTH else 0.0


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def load_evaluation(folder: Path = HERE) -> EvaluationSet:
    """Read evaluation.jsonl and distractors.jsonl from `folder`."""
    questions = tuple(Question(**record) for record in _records(folder / "evaluation.jsonl"))
    distractors = [record["summary"] for record in _records(folder / "distractors.jsonl")]
    # Two questions may share an answer; a candidate must still appear once.
    candidates = dict.fromkeys([*(question.summary for question in questions), *distractors])
    return EvaluationSet(questions, tuple(candidates))


def score(
    model: nn.Module,
    tokenizer: Tokenizer,
    evaluation: EvaluationSet,
    split: Split | None = None,
    language: Language = "german",
) -> Score:
    """Rank all candidates for each question of `split` (None: every question) in `language`."""
    [found] = scores(model, tokenizer, evaluation, split, (language,))
    return found


def scores(
    model: nn.Module,
    tokenizer: Tokenizer,
    evaluation: EvaluationSet,
    split: Split | None = None,
    languages: Sequence[Language] = ("german", "english"),
) -> list[Score]:
    """Do the same for several languages; the candidates are embedded once."""
    asked = [item for item in evaluation.questions if split is None or item.split == split]
    answers = [evaluation.candidates.index(item.summary) for item in asked]
    candidates = embed(model, tokenizer, evaluation.candidates)
    found = []
    for language in languages:
        questions = embed(model, tokenizer, [item.asked_in(language) for item in asked])
        found.append(Score(tuple(_ranks(questions @ candidates.T, answers))))
    return found


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, rounds: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean of `values`, one value per question.

    Pass differences of two models per question to learn whether one is better: the same
    questions are then drawn for both, which is what makes small sets tell anything.
    """
    draw = random.Random(seed)  # noqa: S311 - a reproducible resampling, not a secret
    means = sorted(mean(draw.choices(values, k=len(values))) for _ in range(rounds))
    cut = round((1 - level) / 2 * rounds)
    return means[cut], means[rounds - 1 - cut]


def _ranks(similarities: Tensor, answers: Sequence[int]) -> list[int]:
    # Candidates that tie with the right answer count before it: constant vectors gain nothing.
    ranks = []
    for row, answer in zip(similarities, answers, strict=True):
        ranks.append(int((row >= row[answer]).sum()))
    return ranks


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
