"""The command that finds weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loractl import evaluators, options, output

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankloom.tune.trial import Trial
    from rankloom.tune.tuned import Tuned

_FILE = click.Path(path_type=Path, dir_okay=False)


def _two(text: str) -> tuple[float, float]:
    found = options.weight_list(text)
    if len(found) != 2:
        message = f"{text!r} is not a lowest and a highest weight such as 0,1.5"
        raise click.BadParameter(message)
    return found[0], found[1]


@click.command()
@options.refs
@click.option("--base", required=True, metavar="DIR", help="The base's folder; never changed.")
@click.option("--evaluate", metavar="MODULE:FUNCTION", help="Scores the live model it is given.")
@click.option("--command", metavar="CMD", help="Scores a checkpoint: CMD PATH prints the score.")
@click.option(
    "--held-out",
    metavar="MODULE:FUNCTION|CMD",
    help="The same, on examples that had no part in the search.",
)
@click.option(
    "--load",
    metavar="MODULE:FUNCTION",
    help="Makes a model of the base's folder (default: transformers does).",
)
@click.option("--trials", type=int, metavar="N", help="Compositions to score (default: 30).")
@click.option("--grid", type=options.weight_list, metavar="W1,W2,…", help="Try all of these only.")
@click.option("--bounds", type=_two, default="0,1.5", show_default=True, metavar="LOW,HIGH")
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="TEXT",
    help="Give targets with TEXT in their name a weight.",
)
@click.option("--bands", type=int, default=1, metavar="N", help="Cut the layers into N bands.")
@options.method
@options.rank
@options.parameters
@click.option("--seed", type=int, default=0, show_default=True, help="Of the search.")
@click.option("--journal", type=_FILE, metavar="FILE", help="Keep scores there; go on with it.")
@click.option(
    "-o", "--output", "recipe", type=_FILE, metavar="FILE.yaml", help="Write the recipe there."
)
@click.option("--plot", type=_FILE, metavar="FILE.svg", help="Draw the scores trial by trial.")
@options.offline
@options.as_json
def tune(
    refs: tuple[str, ...],
    evaluate: str | None,
    command: str | None,
    held_out: str | None,
    load: str | None,
    recipe: Path | None,
    plot: Path | None,
    parameters: tuple[tuple[str, Any], ...],
    method: str | None,
    grid: tuple[float, ...] | None,
    *,
    as_json: bool,
    **given: Any,  # noqa: ANN401 - passed on as they are
) -> None:
    r"""Find the weights of a composition on a dev set, and say whether they are worth it.

    Ends with 0 if a composition of all adapters beats each alone on the dev set, with 1 if none
    does: then no recipe is written.

    \b
    loractl tune zh-lang qa-task --base ./base --evaluate score:dev -o zh-qa.yaml
    loractl tune zh-lang qa-task --base ./base --command 'python score.py' --grid 0.25,0.5,1
    loractl compose zh-qa.yaml --push zh-qa
    """
    from rankloom import sdk

    tuned = sdk.tune(
        refs,
        **_evaluations(evaluate, command, held_out),
        model=evaluators.function(load)(given["base"]) if load else None,
        method=method or "exact",
        grid=grid or (),
        progress=_report,
        **given,
        **dict(parameters),
    )
    if tuned.found and recipe is not None:
        tuned.save(recipe)
    if plot is not None:
        plot.write_text(tuned.plot(), "utf-8")
    output.as_json(tuned.to_json()) if as_json else _say(tuned, recipe)
    if not tuned.found:
        raise SystemExit(1)


def _evaluations(evaluate: str | None, command: str | None, held_out: str | None) -> dict[str, Any]:
    if (evaluate is None) == (command is None):
        message = "say what scores a model: --evaluate MODULE:FUNCTION, or --command CMD"
        raise click.UsageError(message)
    made: Callable[[str], Callable[..., Any]]
    made = evaluators.command if command is not None else evaluators.function
    return {
        "evaluate": made(command or evaluate or ""),
        "held_out": made(held_out) if held_out else None,
        "checkpoints": command is not None,
    }


def _report(trial: Trial) -> None:
    weights = ", ".join(f"{weight:g}" for weight in trial.weights)
    line = f"trial {trial.number}: {weights} scores {trial.score.value:.5g}"
    click.echo(f"{line} ({trial.seconds:.1f} s)", err=True)


def _say(tuned: Tuned, recipe: Path | None) -> None:
    output.table(tuned.columns, tuned.table())
    click.echo(tuned.verdict)
    if tuned.found and recipe is not None:
        click.echo(f"recipe written to {recipe}")
