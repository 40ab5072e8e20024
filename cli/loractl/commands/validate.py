"""The command ``validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loractl import options
from loractl.validation.outputs import FORMATS
from loractl.validation.settings import FAIL_ON, LEVELS, Settings

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


def _rules(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(rule.strip().upper() for text in given for rule in text.split(",") if rule.strip())


@click.command()
@click.argument("adapters", nargs=-1, required=True, metavar="REF|DIR...")
@click.option("--against", metavar="DIR|NAME", help="The base that they must fit.")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME[==V][,max_lora_rank=R]",
    help="A serving engine that must serve what was trained; may be given several times.",
)
@click.option("--headers-only", is_flag=True, help="Do not read values; the report says so.")
@click.option("--probe", is_flag=True, help="Run the base on a few tokens, with and without it.")
@click.option("--level", type=click.Choice(LEVELS), help="How well the base must be known.")
@click.option(
    "--select",
    multiple=True,
    callback=_rules,
    metavar="ID,…",
    help="Only these; all must be checked.",
)
@click.option("--ignore", multiple=True, callback=_rules, metavar="ID,…", help="All but these.")
@click.option("--fail-on", type=click.Choice(FAIL_ON), help="What ends with 1 (default: error).")
@click.option("--baseline", type=_FILE, help="Known findings, which do not count.")
@click.option("--write-baseline", type=_FILE, help="Write all findings there, and end with 0.")
@click.option(
    "--fix", "fixed", type=_FOLDER, metavar="DIR", help="Write the adapter there, repaired."
)
@click.option("--fix-in-place", is_flag=True, help="Repair the adapters' own folders.")
@click.option(
    "--pad-rank",
    type=click.IntRange(min=1),
    metavar="R",
    help="With a fix: fill up to rank R with zeros.",
)
@click.option("--format", "kind", type=click.Choice(FORMATS), help="What is printed.")
@click.option(
    "-o",
    "--output",
    "files",
    multiple=True,
    metavar="[FORMAT=]FILE",
    help="Write it there; several formats by several of these.",
)
@options.offline
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
def validate(
    adapters: tuple[str, ...],
    kind: str | None,
    files: tuple[str, ...],
    write_baseline: Path | None,
    fixed: Path | None,
    pad_rank: int | None,
    *,
    fix_in_place: bool,
    as_json: bool,
    **given: Any,  # noqa: ANN401 - the settings, each checked by click
) -> None:
    r"""Check adapters, and how they fit a base.

    Ends with 0 (sound), 1 (errors found), 2 (wrong usage) or 3 (something that was asked for could
    not be checked).

    \b
    loractl validate ./out --against ./base
    loractl validate ./out --select TEN,NUM --output sarif=report.sarif --output junit=report.xml

    --fix repairs what is mechanical and loses nothing (prefixes, dtypes, numbers written as
    texts), compares every value, and reports on the result.

    The table [tool.loractl.validate] of pyproject.toml, or [validate] of loractl.toml, has the same
    options for a whole project; the command line wins.
    """
    from loractl.validation import baseline, fixes, outputs, run, settings
    from rankloom.validate.outcome import Outcome

    chosen = Settings(**given).over(settings.find(Path.cwd()))
    planned = outputs.plan("json" if as_json else kind, files)
    if fixed or fix_in_place or pad_rank is not None:
        adapters = fixes.apply(
            adapters, fixed, chosen.against, in_place=fix_in_place, rank=pad_rank
        )
    policy = run.policy(chosen, with_baseline=write_baseline is None)
    outcome = Outcome.of(run.reports(adapters, chosen), policy)
    if write_baseline:
        count = baseline.write(write_baseline, outcome)
        click.echo(f"{write_baseline}: {count} findings", err=True)
    outputs.write(outcome, planned)
    click.get_current_context().exit(
        0 if write_baseline and outcome.exit_code == 1 else outcome.exit_code
    )
