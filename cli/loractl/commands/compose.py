"""The command that combines adapters into one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loractl import options, output

if TYPE_CHECKING:
    from loractl.composed import Composed
    from rankloom.composition import Composition


@click.command()
@options.composed
@click.option("--base", metavar="DIR|NAME", help="A base that all of them must fit.")
@options.output("Save the composition there, as a PEFT folder.")
@click.option("--push", metavar="NAME", help="Push the composition under this name.")
@click.option("--alias", help="With --push: let this alias name it.")
@click.option("--plan", is_flag=True, help="Only say what it would be; no tensor is read.")
@click.option(
    "--locked",
    metavar="DIR|FILE",
    help="A composition (or its rankloom.json) to make again; fails unless every byte is the same.",
)
@options.as_json
def compose(
    how: Composed,
    base: str | None,
    target: Path | None,
    push: str | None,
    alias: str | None,
    locked: str | None,
    *,
    plan: bool,
    as_json: bool,
) -> None:
    r"""Combine adapters into one: the weighted sum of what each does to the base.

    \b
    loractl compose zh-lang qa-task --weights 1,0.5 -o zh-qa/
    loractl compose a b --method ties --parameter density=0.5 --rank 16 -o both/
    loractl compose recipe.yaml --push zh-qa
    loractl compose recipe.yaml --locked zh-qa/
    """
    if not (target or push or plan or locked):
        message = "say where the composition goes: -o DIR, --push NAME, or both; or --plan"
        raise click.UsageError(message)
    composition = how.compose(base=base, locked=locked)
    if plan:
        _show(composition, as_json=as_json)
        return
    report = _describe(composition)
    if locked is not None and target is None:
        report["reproduced"] = _reproduce(composition)
    if target is not None:
        report["path"] = str(composition.save(target))
    if push is not None:
        report["version"] = output.dump(composition.push(push, alias=alias))
    output.as_json(report) if as_json else _say(report, composition, push)


def _reproduce(composition: Composition) -> bool:
    """Make the files and compare them, and keep nothing."""
    with tempfile.TemporaryDirectory(prefix="rankloom-") as folder:
        composition.save(Path(folder) / "composition")
    return True


def _show(composition: Composition, *, as_json: bool) -> None:
    if as_json:
        output.as_json(composition.lock.to_json())
    else:
        click.echo(str(composition.plan))


def _say(report: dict[str, Any], composition: Composition, push: str | None) -> None:
    ranks = ", ".join(str(rank) for rank in report["ranks"])
    click.echo(f"{report['targets']} targets" + (f", rank {ranks}" if ranks else ""))
    if composition.errors:
        click.echo(str(composition.errors.total))
    if "reproduced" in report:
        click.echo("every byte is as the lock says")
    if "path" in report:
        click.echo(f"saved to {report['path']}")
    if push is not None:
        click.echo(f"pushed as {push}")


def _describe(composition: Composition) -> dict[str, Any]:
    changes = composition.changes
    ranks = {change.formula.rank for change in changes}
    report: dict[str, Any] = {
        "ranks": sorted(rank for rank in ranks if rank is not None),
        "targets": len(changes),
    }
    if composition.errors:
        losses = (composition.errors.total, *composition.errors.targets)
        report["errors"] = [loss.to_json() for loss in losses]
    return report
