"""The command that measures how adapters lie to each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from loractl import options, output

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rankloom.compose.interference.report import InterferenceReport
    from rankloom.finding import Finding

_LEVELS = ("total", "layers", "targets")
_LIMITS = (
    ("max_dominance", "Ratio of the longer to the shorter delta of a pair."),
    ("min_cosine", "Of the angle between two deltas."),
    ("max_cancellation", "Share of the squared norms that is lost in the sum."),
    ("max_overlap", "Of the spaces of two deltas, as a multiple of chance."),
    ("max_sign_conflict", "Estimated share of opposed magnitude."),
)


def _limits(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, help in reversed(_LIMITS):
        flag = f"--{name.replace('_', '-')}"
        command = click.option(flag, name, type=float, metavar="X", help=f"{help} Beyond: exit 1.")(
            command
        )
    return command


@click.command()
@options.refs
@options.weights
@click.option("--level", type=click.Choice(_LEVELS), default="layers", show_default=True)
@click.option(
    "--heatmap",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="Draw the cosine of two adapters, layer by module.",
)
@_limits
@options.offline
@options.as_json
def interference(
    refs: tuple[str, ...],
    weights: tuple[float, ...] | None,
    level: str,
    heatmap: Path | None,
    *,
    as_json: bool,
    **limits: float | None,
) -> None:
    r"""Measure how much adapters disagree where they meet, before they are composed.

    Ends with 1 if a threshold that you give is passed; without any, the usual ones only warn.

    \b
    loractl interference zh-lang qa-task --weights 1,0.5 --max-dominance 4
    """
    from rankloom import sdk

    if heatmap is not None and len(refs) != 2:
        message = f"a heatmap is of two adapters, not of {len(refs)}"
        raise click.UsageError(message)
    report = sdk.interference(refs, weights)
    given = {name: limit for name, limit in limits.items() if limit is not None}
    findings = report.findings(**given)
    if heatmap is not None:
        heatmap.write_text(report.heatmap(refs[0], refs[1]), "utf-8")
    if as_json:
        found = [{"rule": one.rule, "message": one.message, "where": one.where} for one in findings]
        output.as_json({**report.to_json(), "findings": found})
    else:
        _show(report, level, findings)
    if given and findings:
        raise SystemExit(1)


def _show(report: InterferenceReport, level: str, findings: tuple[Finding, ...]) -> None:
    output.table(report.columns, report.table(level))  # type: ignore[arg-type]  # click checked it
    for finding in findings:
        click.echo(f"{finding.severity}: {finding}")
