"""The rules ENG: what the engines that were asked for do with an adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.errors import UnknownEngineError
from rankloom.validate.engines import FEATURES, Judgement, choose, judge
from rankloom.validate.engines.feature import Needs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rankloom.validate.engines import Subject

RULES = tuple(feature.rule.id for feature in FEATURES.values())
_BY_ID = {feature.rule.id: feature for feature in FEATURES.values()}
_UNREADABLE = "no engine could read it so far"


def judgements(engines: Iterable[str], subject: Subject | None) -> Iterator[Judgement]:
    """Return what each engine does; where that cannot be said, why.

    Args:
        engines: as behind ``--engine``.
        subject: the adapter; ``None`` if not even its config and its keys can be read.

    Raises:
        RefError: there is no such engine.
    """
    for text in dict.fromkeys(engines):
        try:
            chosen = choose(text)
        except UnknownEngineError as error:
            yield Judgement(text, text, open=f"{error.message}; {error.hint}")
            continue
        yield judge(subject, chosen) if subject else Judgement(text, chosen.name, open=_UNREADABLE)


def lacking(subject: Subject | None) -> Mapping[str, str]:
    """Return rules that cannot be checked with what is at hand, each with the reason."""
    fit = subject.fit if subject else None
    lacks: dict[Needs, str] = {}
    if fit is None:
        lacks = dict.fromkeys((Needs.BASE, Needs.FINGERPRINTS), "no base was given")
    elif fit.same is None:
        lacks = {Needs.FINGERPRINTS: "no two fingerprints were there to compare"}
    return {rule: lacks[found.needs] for rule, found in _BY_ID.items() if found.needs in lacks}


def unanswered(judged: Iterable[Judgement]) -> Mapping[str, str]:
    """Return rules that nobody can answer for an engine, each with the reason."""
    found: dict[str, str] = {}
    for one in judged:
        found |= dict.fromkeys(RULES, one.open) if one.open else one.unknown()
    return found
