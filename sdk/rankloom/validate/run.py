"""Runs the rules that can be run with what is at hand, and says which could not be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom.adapter import reader
from rankloom.finding import Finding, Severity
from rankloom.fingerprint import Fingerprint, Level
from rankloom.validate import chat, content, fit, norms, same_base, serving
from rankloom.validate.engines import subject as subjects
from rankloom.validate.report import ORDER, Report
from rankloom.validate.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rankloom.adapter.reader import Adapter
    from rankloom.base.model import Base
    from rankloom.validate.engines import Judgement
    from rankloom.validate.fit import Placing
    from rankloom.validate.same_base import Leaves

CONTAINER = tuple(f"FMT{number:03}" for number in range(1, 17))
CONFIG = (
    *("CFG001", "CFG002", "CFG003", "CFG004", "CFG005", "CFG009", "CFG010", "CFG011", "CFG012"),
    *("SEC002", "SEC003", "SEC010"),
)
TENSORS = ("CFG007", "TEN001", "TEN002", "TEN003", "TEN004", "TEN007", "TEN009")
FILES = (*CONTAINER, *CONFIG, *TENSORS, "SEC001", "SEC004")
"""Rules that the readers check: of the tensor file, of the config, of both together."""

_Content = dict[str, "Callable[[Adapter], Iterable[Finding]]"]
HEADERS: _Content = {
    "CFG006": content.target_modules,
    "TEN006": content.missing_layers,
    "TEN008": content.one_dtype,
    "SEC006": chat.endless,
}
VALUES: _Content = {
    "NUM001": content.finite,
    "NUM002": norms.outliers,
    "NUM003": content.not_zero,
    "CFG008": content.recorded,
}
FIT = ("TEN005", "BASE002", "BASE004", "BASE005", "BASE006", "BASE007", "BASE008", "SEC005")
_HEADERS_ONLY = "headers only"
_NO_BASE = "no base was given"
_NO_ENGINE = "no engine was named"
PROBE = ("PRB001", "PRB002")
_NO_PROBE = "no probe was asked for"
_UNREADABLE = "the adapter could not be read so far"


class _Run:
    """Collects findings and what was checked."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.checked: list[str] = []
        self.not_checked: dict[str, str] = {}
        self.level: Level | None = None
        self.blocked: set[str] = set()
        self.engines: tuple[Judgement, ...] = ()
        self.skip(PROBE, _NO_PROBE)

    def check(self, rule: str, findings: Iterable[Finding]) -> None:
        """Note that a rule was checked, and what it found."""
        self.findings += findings
        self.checked.append(rule)

    def drop(self, rule: str, where: str) -> None:
        """Take back a warning that holds only where it is not known what is known now."""
        self.findings = [
            found
            for found in self.findings
            if (found.rule, found.where, found.severity) != (rule, where, Severity.WARNING)
        ]

    def skip(self, rules: Iterable[str], reason: str) -> None:
        """Note that rules were not checked, as nobody asked for it."""
        self.not_checked |= dict.fromkeys(rules, reason)

    def block(self, rules: Sequence[str], reason: str) -> None:
        """Note that rules were asked for, but could not be checked."""
        self.skip(rules, reason)
        self.blocked |= set(rules)

    def report(self, subject: Path) -> Report:
        """Return the report, errors first."""
        self.findings.sort(key=lambda found: ORDER[found.severity])
        return Report(
            subject=str(subject),
            findings=tuple(map(_spoken, self.findings)),
            checked=tuple(self.checked),
            not_checked=self.not_checked,
            level=self.level,
            blocked=frozenset(self.blocked),
            engines=self.engines,
        )


def _spoken(found: Finding) -> Finding:
    """Add the rule's fix where a finding has none, and escape what a terminal would obey."""
    known = RULES.get(found.rule)
    fix = found.fix or (known.fix if known else "")
    return replace(found, message=_printable(found.message), where=_printable(found.where), fix=fix)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def validate(
    adapter: Adapter | Path,
    base: Base | None = None,
    *,
    expected: Fingerprint | None = None,
    found: Fingerprint | None = None,
    leaves: tuple[Leaves, Leaves] | None = None,
    engines: Sequence[str] = (),
    headers_only: bool = False,
) -> Report:
    """Check an adapter, and how it fits a base.

    Args:
        adapter: an adapter, or its folder; what is wrong with the folder is in the report.
        base: the base that it shall fit.
        expected: fingerprint of the base that it was made for; ``None``: what its record says.
        found: fingerprint of ``base``.
        leaves: digests of the tensors of the base that it was made for, and of ``base``: they tell
            what differs where the fingerprints do.
        engines: serving engines that must serve what was trained, e.g. ``"vllm==0.33"``.
        headers_only: do not read the adapter's values; the report says so.

    Raises:
        NotFoundError: there is no such folder.
        RefError: there is no such engine.
    """
    run = _Run()
    if isinstance(adapter, Path):
        inspection = reader.inspect(adapter)
        run.findings += inspection.findings
        if inspection.adapter is None:
            _files_so_far(run)
            _unread(run, base, headers_only=headers_only)
            _engines(run, engines, adapter)
            return run.report(adapter)
        adapter = inspection.adapter
    else:
        run.findings += adapter.findings
    run.checked += FILES
    run.findings += content.stricter(adapter)
    _content(run, adapter, headers_only=headers_only)
    placing = _fit(run, adapter, base)
    run.check("BASE001", content.base_named(adapter) if not (expected or found) else ())
    wanted = expected or adapter.base
    placed = placing.placed
    if related := same_base.related(wanted, found, placed, base, leaves):
        run.level, findings = related
        run.check("BASE003", findings)
    else:
        _identity(run, wanted, found)
    if base is None:
        _engines(run, engines, adapter.path, adapter)
    else:
        same = None if wanted is None or found is None else run.level is not None
        beside = subjects.Fit(base, placed, placing.lost, same)
        _engines(run, engines, adapter.path, adapter, beside)
    return run.report(adapter.path)


def impossible(subject: str, reason: str) -> Report:
    """Return the report on something that could not be looked at: nothing was checked.

    Args:
        subject: what was asked for.
        reason: why it could not be looked at.
    """
    unchecked = dict.fromkeys(RULES, reason)
    return Report(subject, (), (), unchecked, blocked=frozenset(RULES))


def _files_so_far(run: _Run) -> None:
    """Tell what the readers checked before they gave up: each stops at the first broken layer."""
    broken = {found.rule for found in run.findings if found.severity is Severity.ERROR}
    container, config = broken.intersection(CONTAINER), broken.intersection(CONFIG)
    stopped: list[str] = []
    if container:
        stopped += CONTAINER
    if config & {"CFG001", "CFG002"}:
        stopped += CONFIG
    if container or config:
        stopped += TENSORS
    run.checked += [rule for rule in FILES if rule in broken or rule not in stopped]
    run.block([rule for rule in stopped if rule not in broken], _UNREADABLE)


def _unread(run: _Run, base: Base | None, *, headers_only: bool) -> None:
    run.block((*HEADERS, "BASE001"), _UNREADABLE)
    if headers_only:
        run.skip(VALUES, _HEADERS_ONLY)
    else:
        run.block(tuple(VALUES), _UNREADABLE)
    if base is None:
        run.skip((*FIT, "BASE003"), _NO_BASE)
    else:
        run.block((*FIT, "BASE003"), _UNREADABLE)


def _content(run: _Run, adapter: Adapter, *, headers_only: bool) -> None:
    for rule, check in HEADERS.items():
        run.check(rule, check(adapter))
    if adapter.config.target_rule() is None:
        run.checked.remove("CFG006")
        run.skip(["CFG006"], "target_modules names no modules that can be compared")
    if headers_only:
        run.skip(VALUES, _HEADERS_ONLY)
        return
    for rule, check in VALUES.items():
        run.check(rule, check(adapter))


def _fit(run: _Run, adapter: Adapter, base: Base | None) -> Placing:
    if base is None:
        run.skip(FIT, _NO_BASE)
        return fit.Placing([], (), ())
    if fit.lacks_biases(adapter, base):
        run.drop("CFG007", "bias")
    placing = fit.place(adapter, base)
    placed = placing.placed
    run.check("TEN005", placing.findings)
    run.check("BASE002", fit.shapes(placed))
    run.check("BASE004", fit.tied(placed, base))
    run.check("BASE006", fit.quantised(placed))
    run.check("SEC005", chat.differing(adapter, base))
    run.checked.append("BASE005")  # found with the shapes
    run.check("BASE008", fit.assumed(placed, base))
    run.checked.append("BASE007")  # what could not be placed for it is in the findings
    return placing


def _engines(
    run: _Run,
    engines: Sequence[str],
    folder: Path,
    adapter: Adapter | None = None,
    beside: subjects.Fit | None = None,
) -> None:
    if not engines:
        run.skip(serving.RULES, _NO_ENGINE)
        return
    subject = subjects.read(folder, adapter, beside)
    run.engines = tuple(serving.judgements(engines, subject))
    run.findings += (found for judged in run.engines for found in judged.findings())
    lacking, unanswered = serving.lacking(subject), serving.unanswered(run.engines)
    run.not_checked |= {**lacking, **unanswered}
    run.blocked |= unanswered.keys()
    run.checked += [rule for rule in serving.RULES if rule not in run.not_checked]


def _identity(run: _Run, expected: Fingerprint | None, found: Fingerprint | None) -> None:
    if expected is None or found is None:
        lacks = "is recorded" if expected is None else "of the base was given"
        run.skip(["BASE003"], f"no fingerprint {lacks}")
        return
    run.level = expected.match(found)
    if run.level is Level.STRUCT:
        run.skip(["BASE003"], "names and shapes agree, but values were not fingerprinted")
        return
    run.check("BASE003", same_base.differing(expected, found))
