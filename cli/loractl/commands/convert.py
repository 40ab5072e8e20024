"""The command that takes in LoRA files of other tools."""

from __future__ import annotations

from pathlib import Path

import click

from loractl import options, output

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("source", type=_PATH)
@options.output("Where the PEFT folder goes.", required=True)
@click.option("--base", type=_PATH, metavar="DIR", help="The model, to resolve its names.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["auto", "kohya", "diffusers", "loralib"]),
    default="auto",
    show_default=True,
    help="Which tool wrote it.",
)
@click.option("--alpha", type=float, help="Alpha of a loralib file, which does not hold it.")
@options.as_json
def convert(
    source: Path, target: Path, base: Path | None, kind: str, alpha: float | None, *, as_json: bool
) -> None:
    r"""Turn a LoRA file of another tool into a PEFT folder: exact, or refused.

    \b
    loractl convert style.safetensors -o style/ --base ./base
    """
    from rankloom.convert import convert as run

    report = run(source, target, base=base, kind=kind, alpha=alpha)
    if as_json:
        output.as_json({"path": str(target), **report})
    else:
        click.echo(f"{target}: {report['modules']} modules, from {report['format']}")
