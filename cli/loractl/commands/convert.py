"""The command that takes in LoRA files of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loractl import options, output

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("source", type=_PATH)
@options.output("Where the PEFT folder goes.", required=True)
@click.option(
    "--base",
    type=_PATH,
    metavar="DIR",
    help="The model, or the pipeline that has its models in folders, to resolve and check names.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["auto", "kohya", "diffusers", "loralib"]),
    default="auto",
    show_default=True,
    help="Which tool wrote it; LyCORIS writes as kohya does.",
)
@click.option("--alpha", type=float, help="Alpha of a loralib file, which does not hold it.")
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="Read tensors out of a pickle (.bin, .pt); nothing else in it is ever called.",
)
@options.as_json
def convert(
    source: Path,
    target: Path,
    base: Path | None,
    kind: str,
    alpha: float | None,
    *,
    allow_pickle: bool,
    as_json: bool,
) -> None:
    r"""Turn a LoRA file of another tool, or a pickled one, into a PEFT folder: exact, or refused.

    \b
    loractl convert style.safetensors -o style/ --base ./base
    loractl convert old-peft/ -o adapter/ --allow-pickle
    """
    from rankloom.convert import convert as run

    report = run(source, target, base=base, kind=kind, alpha=alpha, allow_pickle=allow_pickle)
    if as_json:
        output.as_json({"path": str(target), **report})
        return
    for folder in report["folders"]:
        click.echo(_line(folder, report["format"]))
    if not report["checked"]:
        click.echo("names and shapes are as in the file; --base checks them against a model")


def _line(folder: dict[str, Any], kind: str) -> str:
    text = f"{folder['path']}: {folder['peft_type']}, {folder['modules']} modules, from {kind}"
    if folder["rounded"]:
        text += f"; in {folder['rounded']} of them values lost a bit, rounded once"
    return text
