"""How a command ends when something is refused: what, which, the next step, and its exit code."""

from __future__ import annotations

import json
import sys
import warnings
from typing import TYPE_CHECKING, Any

import click

from loractl.overview import Overview
from rankloom.errors import RankloomError, RankloomWarning

if TYPE_CHECKING:
    from typing import TextIO


class ErrorAwareGroup(Overview):
    """A group that turns the library's errors and warnings into words for people."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Run a command; exit with the error's own code if it refuses."""
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.simplefilter("always", RankloomWarning)
            try:
                return super().invoke(ctx)
            except RankloomError as error:
                show(error)
                ctx.exit(error.exit_code)


def show(error: RankloomError) -> None:
    """Print an error: for people on standard error, with ``--json`` on standard output."""
    if "--json" in sys.argv:
        click.echo(json.dumps({"error": describe(error)}, indent=2))
        return
    click.echo(f"{click.style('error:', fg='red', bold=True)} {error.message}", err=True)
    for finding in error.findings:
        click.echo(f"  {finding}", err=True)
    if error.hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {error.hint}", err=True)
    if error.request_id:
        click.echo(f"request id: {error.request_id}", err=True)


def describe(error: RankloomError) -> dict[str, Any]:
    """Return an error as the JSON that ``--json`` prints."""
    findings = [
        {"rule": item.rule, "severity": item.severity, "message": item.message, "fix": item.fix}
        for item in error.findings
    ]
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "findings": findings,
        "request_id": error.request_id,
    }


def _show_warning(  # the signature is that of warnings.showwarning
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del filename, lineno, file, line  # where in our code a warning arose is nothing to a user
    if issubclass(category, UserWarning):
        click.echo(f"{click.style('warning:', fg='yellow')} {message}", err=True)
