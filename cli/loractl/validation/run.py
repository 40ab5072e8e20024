"""One run of ``loractl validate``: each adapter gets its report, whatever happens to the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loractl import output
from loractl.validation import baseline
from rankloom.errors import RankloomError, RefError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loractl.validation.settings import Settings
    from rankloom.validate import Policy, Report


def policy(settings: Settings, *, with_baseline: bool = True) -> Policy:
    """Return what counts under some settings.

    Raises:
        RefError: a rule does not exist, or the baseline is none.
    """
    from rankloom.finding import Severity
    from rankloom.fingerprint import Level
    from rankloom.validate import Policy

    known = settings.baseline if with_baseline else None
    return Policy(
        select=tuple(rule for rule in settings.select if rule != "ALL"),
        ignore=settings.ignore,
        ignore_in=settings.ignore_in,
        baseline=baseline.read(known) if known else frozenset(),
        fail_on=Severity(settings.fail_on or Severity.ERROR),
        level=Level(settings.level) if settings.level else None,
    )


def reports(adapters: Iterable[str], settings: Settings) -> dict[str, Report]:
    """Return the whole report of each adapter; one that cannot be looked at has nothing checked.

    Raises:
        RefError: a ref is malformed.
    """
    return {name: _report(name, settings) for name in adapters}


def _report(name: str, settings: Settings) -> Report:
    from rankloom import sdk
    from rankloom.validate.run import impossible

    try:
        with output.progress("fingerprint") as progress:
            return sdk.validate(
                name,
                against=settings.against,
                headers_only=bool(settings.headers_only),
                progress=progress,
            )
    except RefError:
        raise
    except RankloomError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return impossible(name, error.message + hint)
