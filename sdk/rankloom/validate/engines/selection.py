"""From what a person writes behind ``--engine`` to an engine's file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from rankloom.errors import RefError, UnknownEngineError
from rankloom.validate.engines.engine import Engine, Verdict
from rankloom.validate.engines.loading import engines

_WRITTEN = re.compile(r"([a-z][a-z.-]*)(?:==([\w.]+))?(?:,max_lora_rank=([0-9]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Chosen:
    """An engine, and how it is started.

    Attributes:
        text: how it was named.
        engine: what is known of it.
        max_rank: the largest rank that it does not refuse; ``None``: any.
        limit: the largest rank that it is made for; ``None``: any.
    """

    text: str
    engine: Engine
    max_rank: int | None
    limit: int | None

    @property
    def name(self) -> str:
        """The engine with its version, for messages."""
        return f"{self.engine.title} {self.engine.version}"

    @property
    def advice(self) -> str:
        """What to write if the engine is started for larger ranks; empty if that cannot be."""
        values = self.engine.ranks.settings
        if not values or "," in self.text:
            return ""
        return f"; started with a larger one, write '{self.text},max_lora_rank={values[-1]}'"


def choose(text: str) -> Chosen:
    """Read ``vllm``, ``vllm==0.33`` or ``vllm==0.33,max_lora_rank=64``.

    Without a version it is the newest that is known; ``0.33`` is the newest ``0.33.x``.

    Raises:
        RefError: there is no such engine, or it cannot be set to this rank.
        UnknownEngineError: nobody has described this version.
    """
    written = _WRITTEN.fullmatch(text)
    names = dict.fromkeys(engine.name for engine in engines())
    if written is None or written[1] not in names:
        message = f"{text!r} is no engine that is known"
        raise RefError(message, hint=_hint(text, list(names)))
    name, version, rank = written.groups()
    engine = _version(name, version)
    if rank is None:
        return Chosen(text, engine, engine.max_rank, engine.ranks.default)
    limit = _rank(engine, int(rank))
    refused = engine.cells["rank"].verdict is Verdict.REJECT
    return Chosen(text, engine, limit if refused else None, limit)


def _hint(text: str, names: list[str]) -> str:
    near = get_close_matches(text.partition("=")[0], names, 1)
    meant = f"perhaps {near[0]}; " if near else ""
    return f"{meant}known are {', '.join(names)}, each as NAME[==VERSION][,max_lora_rank=R]"


def _version(name: str, version: str | None) -> Engine:
    known = [engine for engine in engines() if engine.name == name]
    for engine in reversed(known):
        if version in {None, engine.version} or engine.version.startswith(f"{version}."):
            return engine
    versions = ", ".join(engine.version for engine in known)
    message = f"what {name} {version} does with adapters is not known"
    raise UnknownEngineError(message, hint=f"known of {name} is {versions}")


def _rank(engine: Engine, rank: int) -> int:
    values = engine.ranks.settings
    if rank < 1 or (values and rank not in values):
        wanted = f"one of {', '.join(map(str, values))}" if values else "a whole number from 1"
        message = f"{engine.name} has no max_lora_rank of {rank}"
        raise RefError(message, hint=f"it is {wanted}")
    return rank
