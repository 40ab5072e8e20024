"""One run of ``loractl validate``: each adapter gets its report, whatever happens to the others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from loractl import output
from loractl.validation import baseline
from rankloom.errors import RankloomError, RefError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loractl.validation.settings import Settings
    from rankloom.validate import Policy, Report

_FILE = re.compile(r"adapter_config\.json|adapter_model[^/]*\.safetensors")


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

    Args:
        adapters: refs, folders, or files of folders, as pre-commit gives them.
        settings: what to check against.

    Raises:
        RefError: a ref is malformed.
    """
    names = dict.fromkeys(_folder(name) for name in adapters)
    return {name: _report(name, settings) for name in names}


def _folder(name: str) -> str:
    """Return the folder of an adapter's file; anything else as it is."""
    path = Path(name)
    if not _FILE.fullmatch(path.name) or not path.is_file():
        return name
    folder = path.parent.as_posix()
    return folder if folder.startswith((".", "/")) else f"./{folder}"


def _report(name: str, settings: Settings) -> Report:
    from rankloom import sdk
    from rankloom.validate.run import impossible

    try:
        with output.progress("fingerprint") as progress:
            return sdk.validate(
                name,
                against=settings.against,
                engines=settings.engines,
                headers_only=bool(settings.headers_only),
                probe=bool(settings.probe),
                progress=progress,
            )
    except RefError:
        raise
    except RankloomError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return impossible(name, error.message + hint)
