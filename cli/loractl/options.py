"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
import json
import os
import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loractl.composed import Composed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankloom.signing.signers import Signer

    Signers = tuple[Signer, ...]
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


def _go_offline(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Set ``RANKLOOM_OFFLINE`` until the command ends."""
    del parameter
    if value:
        before = os.environ.get("RANKLOOM_OFFLINE")
        os.environ["RANKLOOM_OFFLINE"] = "1"

        def restore() -> None:
            del os.environ["RANKLOOM_OFFLINE"]
            if before is not None:
                os.environ["RANKLOOM_OFFLINE"] = before

        context.call_on_close(restore)


offline: Decorator = click.option(
    "--offline",
    is_flag=True,
    expose_value=False,
    callback=_go_offline,
    help="Use what the cache knows of the registry, and no network (RANKLOOM_OFFLINE=1).",
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


def duration(text: str) -> timedelta:
    """Return a time, e.g. of ``30d``, ``12h`` or ``45m``."""
    found = re.fullmatch(r"(\d{1,6})\s*([dhm])", text)
    if not found:
        message = f"{text!r} is no time such as 30d, 12h or 45m"
        raise click.BadParameter(message)
    unit = {"d": "days", "h": "hours", "m": "minutes"}[found[2]]
    return timedelta(**{unit: int(found[1])})


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


def signers(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command, as ``by``, those whose signatures are trusted."""

    @functools.wraps(command)
    def call(**given: Any) -> Any:  # noqa: ANN401 - whatever the command's other options are
        names = ("keys", "identity", "issuer", "trust_config")
        return command(by=_signers(*(given.pop(name) for name in names)), **given)

    decorated: Callable[..., Any] = call
    for decorator in (_trust_config, _issuer, _identity, _keys):
        decorated = decorator(decorated)
    return decorated


_keys: Decorator = click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="PEM",
    help="The public key of who signs, or an authority's certificates; may be given several times.",
)
_identity: Decorator = click.option(
    "--identity", metavar="NAME", help="Who signs by Sigstore: an e-mail address or a workflow."
)
_issuer: Decorator = click.option("--issuer", metavar="URL", help="Who vouches for that identity.")
_trust_config: Decorator = click.option(
    "--trust-config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="JSON",
    help="That of a Sigstore of your own.",
)


def _signers(
    keys: tuple[str, ...], identity: str | None, issuer: str | None, trust_config: Path | None
) -> Signers:
    if (identity is None) != (issuer is None) or (trust_config and not identity):
        message = "--identity and --issuer belong together"
        raise click.UsageError(message)
    if not keys and identity is None:
        return ()
    from rankloom.signing.signers import IdentitySigner, read_signer

    by: list[Signer] = [read_signer(key) for key in keys]
    if identity is not None and issuer is not None:
        trust = trust_config.read_text("utf-8") if trust_config else None
        by.append(IdentitySigner(identity=identity, issuer=issuer, trust=trust))
    return tuple(by)


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
    for decorator in (
        offline,
        allow_no_effect,
        engines,
        parameters,
        rank,
        method,
        weights,
        sources,
    ):
        decorated = decorator(decorated)
    return decorated
