"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loractl.composed import Composed

if TYPE_CHECKING:
    from collections.abc import Callable

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

as_json: Decorator = click.option("--json", "as_json", is_flag=True, help="Output for machines.")
refs: Decorator = click.argument("refs", nargs=-1, required=True, metavar="REF|DIR...")
sources: Decorator = click.argument(
    "refs", nargs=-1, required=True, metavar="REF|DIR...|RECIPE.yaml"
)
method: Decorator = click.option("--method", help="How the deltas are combined (default: exact).")
rank: Decorator = click.option(
    "--rank", metavar="R|energy=E|auto", help="Bring the result to this rank; default: all of it."
)


def weight_list(text: str) -> tuple[float, ...]:
    """Return numbers separated by commas, e.g. of ``1,0.5`` or ``1,-0.5``."""
    try:
        return tuple(float(item) for item in text.split(","))
    except ValueError as error:
        message = f"{text!r} is not a list of numbers such as 1,0.5"
        raise click.BadParameter(message) from error


def byte_count(text: str) -> int:
    """Return bytes, e.g. of ``5GB`` or ``500MiB``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text, re.IGNORECASE)
    if not found or not float(found[1]):
        message = f"{text!r} is no size such as 5GB or 500MiB"
        raise click.BadParameter(message)
    unit = (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " ")
    return max(1, int(float(found[1]) * unit))


def plain_pair(text: str) -> tuple[str, str]:
    """Return name and value as text, e.g. of ``task=qa`` or, to remove it, ``task=``."""
    name, equals, value = text.partition("=")
    if not equals:
        message = f"{text!r} is no name=value"
        raise click.BadParameter(message)
    return name, value


def pair(text: str) -> tuple[str, Any]:
    """Return name and value, e.g. of ``density=0.5`` or ``sign_election=unweighted``."""
    name, equals, value = text.partition("=")
    if not equals:
        message = f"{text!r} is no name=value"
        raise click.BadParameter(message)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


parameters: Decorator = click.option(
    "--parameter",
    "parameters",
    type=pair,
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the method, e.g. density=0.5; may be given several times.",
)
weights: Decorator = click.option(
    "--weights",
    type=weight_list,
    metavar="W1,W2,…",
    help="One number per adapter (default: all 1).",
)


engines: Decorator = click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME[==V][,max_lora_rank=R]",
    help="A serving engine that must take the rank, e.g. vllm; may be given several times.",
)
allow_no_effect: Decorator = click.option(
    "--allow-no-effect",
    is_flag=True,
    help="Only warn where an adapter, or all of them, leave a target as it is.",
)


def output(help: str, *, required: bool = False) -> Decorator:
    """Return the option ``-o DIR``."""
    kind = click.Path(path_type=Path)
    return click.option(
        "-o", "--output", "target", type=kind, required=required, metavar="DIR", help=help
    )


def composed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command, as ``how``, the adapters and how they are combined."""

    @functools.wraps(command)
    def call(**given: Any) -> Any:  # noqa: ANN401 - whatever the command's other options are
        own = {item.name: given.pop(item.name) for item in fields(Composed)}
        return command(how=Composed(**own), **given)

    decorated: Callable[..., Any] = call
    for decorator in (allow_no_effect, engines, parameters, rank, method, weights, sources):
        decorated = decorator(decorated)
    return decorated
