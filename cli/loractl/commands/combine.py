"""Commands that combine adapters and apply them to a base; the only ones that load torch."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from loractl import options, output

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.composition import Composition

_DTYPES = ("float64", "float32", "bfloat16", "float16")


@click.command()
@options.refs
@options.weights
@options.method
@click.option("--base", metavar="DIR|NAME", help="A base that all of them must fit.")
@options.output("Save the composition there, as a PEFT folder.")
@click.option("--push", metavar="NAME", help="Push the composition under this name.")
@click.option("--alias", help="With --push: let this alias name it.")
@options.as_json
def compose(
    refs: tuple[str, ...],
    weights: tuple[float, ...] | None,
    method: str,
    base: str | None,
    target: Path | None,
    push: str | None,
    alias: str | None,
    *,
    as_json: bool,
) -> None:
    r"""Combine adapters into one: the weighted sum of what each does to the base.

    \b
    loractl compose zh-lang qa-task --weights 1,0.5 -o zh-qa/
    """
    from rankloom import sdk

    if target is None and push is None:
        message = "say where the composition goes: -o DIR, --push NAME, or both"
        raise click.UsageError(message)
    composition = sdk.compose(refs, weights, method=method, base=base)
    report = _describe(composition)
    if target is not None:
        report["path"] = str(composition.save(target))
    if push is not None:
        report["version"] = output.dump(composition.push(push, alias=alias))
    if as_json:
        output.as_json(report)
        return
    ranks = ", ".join(str(rank) for rank in report["ranks"])
    click.echo(f"{report['targets']} targets, rank {ranks}")
    if target is not None:
        click.echo(f"saved to {target}")
    if push is not None:
        click.echo(f"pushed as {push}")


def _describe(composition: Composition) -> dict[str, Any]:
    targets = composition.plan.targets
    return {"ranks": sorted({target.rank for target in targets}), "targets": len(targets)}


@click.command()
@options.refs
@options.weights
@options.method
@click.option("--base", required=True, metavar="DIR", help="The base's folder; never changed.")
@options.output("Where the merged checkpoint goes.", required=True)
@click.option("--dtype", type=click.Choice(_DTYPES), help="Dtype of changed tensors.")
@options.as_json
def apply(
    refs: tuple[str, ...],
    weights: tuple[float, ...] | None,
    method: str,
    base: str,
    target: Path,
    dtype: str | None,
    *,
    as_json: bool,
) -> None:
    r"""Combine adapters and apply them to a base in one go: checkpoint in, checkpoint out.

    \b
    loractl apply zh-lang qa-task --weights 1,0.5 --base ./base -o ./merged
    """
    from rankloom import sdk

    composition = sdk.compose(refs, weights, method=method)
    with output.progress("apply") as progress:
        report = composition.apply_to(base, target, dtype=dtype, progress=progress)
    if as_json:
        output.as_json({"path": str(target), **asdict(report)})
    else:
        rate = report.nbytes / max(report.seconds, 1e-9)
        click.echo(
            f"{target}: {report.changed} tensors changed, {output.size(report.nbytes)} in "
            f"{report.seconds:.1f} s ({output.size(int(rate))}/s)"
        )
