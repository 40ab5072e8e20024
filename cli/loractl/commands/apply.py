"""The command that applies adapters to a base."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from loractl import options, output

if TYPE_CHECKING:
    from loractl.composed import Composed

_DTYPES = ("float64", "float32", "bfloat16", "float16")


@click.command()
@options.composed
@click.option("--base", required=True, metavar="DIR|s3://…", help="The base; never changed.")
@click.option(
    "-o",
    "--output",
    "target",
    required=True,
    metavar="DIR|s3://…",
    help="Where the merged checkpoint goes.",
)
@click.option(
    "--dtype",
    type=click.Choice(_DTYPES),
    help="Dtype of all floats; default: as in the base.",
)
@click.option(
    "--shard-size",
    type=options.byte_count,
    metavar="SIZE",
    help="Largest file, e.g. 5GB; default: the base's.",
)
@click.option(
    "--on",
    default="threads",
    metavar="threads|cuda|processes|ray|ray://HOST:PORT",
    help="What does the work: this process (default), its GPU, other processes, a Ray cluster.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="How many at once; default: one a core, up to 4, or the whole cluster.",
)
@click.option("--digest", is_flag=True, help="Also report the digest of the weights written.")
@options.as_json
def apply(
    how: Composed,
    base: str,
    target: str,
    dtype: str | None,
    shard_size: int | None,
    on: str,
    workers: int | None,
    *,
    digest: bool,
    as_json: bool,
) -> None:
    r"""Combine adapters and apply them to a base in one go: checkpoint in, checkpoint out.

    \b
    loractl apply zh-lang qa-task --weights 1,0.5 --base ./base -o ./merged
    loractl apply recipe.yaml --base ./base -o ./merged
    loractl apply recipe.yaml --base s3://models/base -o s3://models/merged --on ray://head:10001
    A run that was killed is taken up by the same command where it was.
    """
    composition = how.compose()
    with output.progress("apply") as progress:
        report = composition.apply_to(
            base,
            target,
            dtype=dtype,
            shard_bytes=shard_size,
            workers=workers,
            on=on,
            digest=digest,
            progress=progress,
        )
    if as_json:
        output.as_json({"path": str(target), **asdict(report)})
    else:
        rate = report.nbytes / max(report.seconds, 1e-9)
        click.echo(
            f"{target}: {report.changed} tensors changed, {output.size(report.nbytes)} in "
            f"{report.seconds:.1f} s ({output.size(int(rate))}/s)"
        )
        if report.digest:
            click.echo(report.digest)
