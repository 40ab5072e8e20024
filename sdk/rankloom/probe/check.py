"""The rules of a probe, as an addition to the report of a validation."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rankloom.errors import BackendUnavailableError, RankloomError
from rankloom.validate.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rankloom.finding import Finding
    from rankloom.fingerprint import Fingerprint
    from rankloom.probe.take import Taken
    from rankloom.recipe.part import Part
    from rankloom.registry.wire import Probe
    from rankloom.validate.report import Report

EFFECT, RECORDED = "PRB001", "PRB002"


def check(
    report: Report, part: Part, base: Path, found: Fingerprint, recorded: Probe | None
) -> Report:
    """Return a report with the rules of a probe checked.

    Args:
        report: of the same adapter and base.
        part: the adapter.
        base: the base's folder.
        found: the base's identity.
        recorded: what was kept at the push; ``None``: nothing.
    """
    unlike = _unlike(found, recorded)
    tokens = None if recorded is None or unlike else recorded.tokens
    try:
        with needed():
            from rankloom.probe.take import take
        taken = take(part, base, tokens)
    except RankloomError as error:
        return open_(report, f"the probe could not be run: {error.message}")
    report = report.checked_too(EFFECT, effect(taken))
    if recorded is None or unlike:
        return report.not_checked_for(unlike, RECORDED)
    return report.checked_too(RECORDED, as_recorded(taken, recorded))


@contextmanager
def needed() -> Iterator[None]:
    """Say which package is missing where what runs models is imported."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"a probe needs {error.name}, which is not installed"
        hint = "pip install 'rankloom[torch]' transformers"
        raise BackendUnavailableError(message, hint=hint) from error


def open_(report: Report, reason: str) -> Report:
    """Return a report on a probe that was asked for and could not be taken."""
    return report.not_checked_for(reason, EFFECT, RECORDED, asked=True)


def _unlike(found: Fingerprint, recorded: Probe | None) -> str:
    """Say why answers cannot be compared with the recorded ones; empty if they can."""
    if recorded is None:
        return "no probe was kept when it was pushed"
    if recorded.base not in {found.bf16, found.struct}:
        return "the recorded probe was taken on another base"
    if recorded.effect <= recorded.limit:
        return "the adapter changes the recorded answer less than rounding may"
    return ""


def effect(taken: Taken) -> Iterator[Finding]:
    """PRB001: the answers are finite, and other ones than the base's."""
    if not taken.adapted.is_finite:
        yield RULES[EFFECT].finding("the base answers NaN or infinity with the adapter")
    elif taken.effect == 0:
        message = f"the base's {taken.alone.what} are the same, to the bit, with the adapter"
        yield RULES[EFFECT].finding(f"{message} (asked with {len(taken.tokens)} tokens)")


def as_recorded(taken: Taken, recorded: Probe) -> Iterator[Finding]:
    """PRB002: the answers are the recorded ones, within the recorded tolerance."""
    answer = taken.adapted
    ids = [number for number, _ in recorded.top]
    if answer.what != recorded.what or max(ids) >= answer.values.shape[-1]:
        message = f"the base answers with {answer.what} of width {answer.values.shape[-1]}"
        yield RULES[RECORDED].finding(f"{message}; recorded are {recorded.what}")
        return
    pairs = zip(recorded.top, answer.at(ids), strict=True)
    off = max(abs(value - wanted) for (_, wanted), value in pairs)
    norm = abs(answer.norm - recorded.norm)
    # The comparisons are this way round so that NaN is found, too.
    if not (off <= recorded.limit and norm <= recorded.tolerance * recorded.norm):
        message = f"the {answer.what} are off by {off:.3g}, their norm by {norm:.3g}"
        allowed = f"{recorded.limit:.3g} and {recorded.tolerance * recorded.norm:.3g} are allowed"
        yield RULES[RECORDED].finding(f"{message}; {allowed}")
