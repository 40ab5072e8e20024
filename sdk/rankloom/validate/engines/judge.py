"""What an engine does with an adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.finding import Finding, Severity
from rankloom.validate.engines.engine import Verdict
from rankloom.validate.engines.feature import Needs
from rankloom.validate.engines.features import FEATURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rankloom.validate.engines.feature import Feature, Hit
    from rankloom.validate.engines.selection import Chosen
    from rankloom.validate.engines.subject import Subject

_SAYS = {
    Verdict.REJECT: "refuses it",
    Verdict.SILENT: "serves something else without an error",
    Verdict.DEGRADED: "serves it with a loss",
}
_SEVERITY = {Verdict.DEGRADED: Severity.WARNING}
_WORST = (Verdict.REJECT, Verdict.SILENT, Verdict.UNKNOWN, Verdict.DEGRADED)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an engine does not just accept an adapter: one feature.

    Attributes:
        rule: id of the feature's rule.
        feature: its name.
        verdict: what the engine does with it.
        what: what of the adapter it is.
        where: config field or tensor.
        reason: how it comes about.
        remedy: the next step.
        source: where in the engine it was read.
    """

    rule: str
    feature: str
    verdict: Verdict
    what: str
    where: str
    reason: str
    remedy: str
    source: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one engine does with one adapter.

    Attributes:
        text: the engine, as it was asked for.
        name: the engine and its version.
        reasons: every feature that it does not just accept.
        open: why nothing can be said; empty if something can.
    """

    text: str
    name: str
    reasons: tuple[Reason, ...] = ()
    open: str = ""

    @property
    def verdict(self) -> Verdict:
        """The whole verdict: what is refused is never served wrongly."""
        if self.open:
            return Verdict.UNKNOWN
        found = {reason.verdict for reason in self.reasons}
        return next((verdict for verdict in _WORST if verdict in found), Verdict.ACCEPT)

    def findings(self) -> Iterator[Finding]:
        """Return one finding per reason: an error, or a warning of what is only degraded."""
        for found in self.reasons:
            if found.verdict is Verdict.UNKNOWN:
                continue
            message = f"{self.name} {_SAYS[found.verdict]}: {found.what}; {found.reason}"
            severity = _SEVERITY.get(found.verdict, Severity.ERROR)
            yield Finding(found.rule, message, severity, found.where, found.remedy)

    def unknown(self) -> Mapping[str, str]:
        """Return ids of rules that nobody can answer for this adapter, each with the reason."""
        return {
            found.rule: f"{self.name}: {found.what}; {found.reason}"
            for found in self.reasons
            if found.verdict is Verdict.UNKNOWN
        }


def judge(subject: Subject, chosen: Chosen, needs: Iterable[Needs] = Needs) -> Judgement:
    """Return what an engine does with an adapter.

    Args:
        subject: the adapter; without a base, features that show beside one are not seen.
        chosen: the engine.
        needs: which features are looked for.
    """
    wanted = frozenset(needs)
    features = (found for found in FEATURES.values() if found.needs in wanted)
    reasons = (
        _reason(found, hit, chosen)
        for found in features
        if chosen.engine.cells[found.name].verdict is not Verdict.ACCEPT
        for hit in found.find(subject, chosen)
    )
    return Judgement(chosen.text, chosen.name, tuple(reasons))


def _reason(found: Feature, hit: Hit, chosen: Chosen) -> Reason:
    cell = chosen.engine.cells[found.name]
    return Reason(
        rule=found.rule.id,
        feature=found.name,
        verdict=cell.verdict,
        what=hit.what,
        where=hit.where,
        reason=cell.reason,
        remedy=cell.remedy or found.rule.fix,
        source=cell.source,
    )
