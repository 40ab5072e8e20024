"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

as_json: Decorator = click.option("--json", "as_json", is_flag=True, help="Output for machines.")
refs: Decorator = click.argument("refs", nargs=-1, required=True, metavar="REF|DIR...")
method: Decorator = click.option(
    "--method", default="exact", show_default=True, help="How the deltas are combined."
)


def weight_list(text: str) -> tuple[float, ...]:
    """Return numbers separated by commas, e.g. of ``1,0.5`` or ``1,-0.5``."""
    try:
        return tuple(float(item) for item in text.split(","))
    except ValueError as error:
        message = f"{text!r} is not a list of numbers such as 1,0.5"
        raise click.BadParameter(message) from error


weights: Decorator = click.option(
    "--weights",
    type=weight_list,
    metavar="W1,W2,…",
    help="One number per adapter (default: all 1).",
)


def output(help: str, *, required: bool = False) -> Decorator:
    """Return the option ``-o DIR``."""
    kind = click.Path(path_type=Path)
    return click.option(
        "-o", "--output", "target", type=kind, required=required, metavar="DIR", help=help
    )
