"""Commands that find versions, and say things of them to find them by."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import click

from loractl import options, output

if TYPE_CHECKING:
    from rankloom.registry.wire import RelatedVersion, Version


def _several(name: str, help: str, metavar: str) -> options.Decorator:
    return click.option(name, multiple=True, metavar=metavar, help=help)


@click.command()
@click.argument("text", default="")
@click.option("--namespace", help="Only in this namespace.")
@click.option("--base", metavar="NAME|DIGEST", help="Made for this base.")
@click.option("--rank-min", type=click.IntRange(0), help="Of at least this rank.")
@click.option("--rank-max", type=click.IntRange(0), help="Of at most this rank.")
@click.option("--kind", help="How it stores its change, e.g. lora.")
@_several(
    "--contains", "It changes this module, e.g. q_proj; may be given several times.", "MODULE"
)
@_several("--within", "It changes no modules but these.", "MODULE")
@_several("--label", "It carries this label.", "NAME=VALUE")
@click.option("--creator", help="Name of the token that pushed it.")
@click.option("--same-as", metavar="REF|DIR", help="Versions, old ones too, of the same tensors.")
@click.option("--engine", metavar="ENGINE", help="That this engine, e.g. vllm==0.33, accepts.")
@click.option(
    "--verdict",
    type=click.Choice(["accept", "reject", "silent-wrong", "degraded", "unknown"]),
    help="What the engine does with it instead, as it starts by default.",
)
@click.option("--all-versions", is_flag=True, help="Not only the latest of each adapter.")
@click.option("--yanked", is_flag=True, help="Yanked versions too.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
@options.as_json
def search(
    text: str,
    *,
    label: tuple[str, ...],
    all_versions: bool,
    limit: int,
    as_json: bool,
    **given: Any,  # noqa: ANN401 - the rest of the options, as the query names them
) -> None:
    """Search versions, newest first; all that is given must hold.

    TEXT is words of the name, the namespace or the card.
    """
    from rankloom import sdk

    query = {name: value for name, value in given.items() if value is not None}
    latest = not (all_versions or "same_as" in query)
    found = sdk.search(text, labels=label, latest=latest, **query)
    versions = list(itertools.islice(found, limit))
    if as_json:
        output.as_json([output.dump(version) for version in versions])
    elif not versions:
        click.echo("nothing was found")
    else:
        columns = ("version", "kind", "rank", "targets", "size", "base", "aliases", "labels")
        output.table(columns, (_row(version) for version in versions))


@click.command()
@click.argument("ref")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
@options.as_json
def related(ref: str, limit: int, *, as_json: bool) -> None:
    """List versions that have tensors of the one that REF names: copies first.

    A tensor counts whatever its name, and once; one of the same value throughout does not count.
    """
    from rankloom import sdk

    found = list(itertools.islice(sdk.related(ref), limit))
    if as_json:
        output.as_json([output.dump(item) for item in found])
    elif not found:
        click.echo(f"no other version has a tensor of {ref}")
    else:
        columns = ("version", "shares", "of its", "kind", "rank", "base", "yanked")
        output.table(columns, (_related_row(item) for item in found))


def _related_row(item: RelatedVersion) -> tuple[str, ...]:
    version = item.version
    return (
        _name(version),
        f"{item.shared} of {item.of}" + (" (all)" if item.is_same else ""),
        str(item.tensors),
        ", ".join(version.facts.kinds),
        ", ".join(map(str, version.facts.ranks)),
        version.base or "-",
        version.yanked or "",
    )


def _name(version: Version) -> str:
    return f"{version.adapter}@v{version.number}" + (f" {version.semver}" if version.semver else "")


def _row(version: Version) -> tuple[str, ...]:
    facts = version.facts
    return (
        _name(version),
        ", ".join(facts.kinds),
        ", ".join(map(str, facts.ranks)),
        str(len(facts.targets)),
        output.size(facts.nbytes),
        version.base or "-",
        ", ".join(version.aliases),
        " ".join(f"{name}={value}" for name, value in version.labels.items()),
    )


@click.command()
@click.argument("ref")
@click.option("--label", type=options.plain_pair, multiple=True, metavar="NAME=VALUE")
@click.option("--metric", type=options.plain_pair, multiple=True, metavar="NAME=NUMBER")
@click.option("--deprecated", metavar="REASON", help="Why it should not be used any more.")
@click.option("--undo-deprecated", is_flag=True, help="It may be used again.")
@options.as_json
def remark(
    ref: str,
    label: tuple[tuple[str, str], ...],
    metric: tuple[tuple[str, str], ...],
    deprecated: str | None,
    *,
    undo_deprecated: bool,
    as_json: bool,
) -> None:
    """Say of the version that REF names: labels, metrics, that it is deprecated.

    What is not named stays; NAME= removes a label or metric. The content does not change.
    """
    from rankloom import sdk

    version = sdk.remark(
        ref,
        labels={name: value or None for name, value in label},
        metrics={name: _number(value) for name, value in metric},
        deprecated="" if undo_deprecated else deprecated,
    )
    if as_json:
        output.as_json(output.dump(version))
        return
    said = [f"{name}={value}" for name, value in {**version.labels, **version.metrics}.items()]
    if version.deprecated:
        said.append(f"(deprecated: {version.deprecated})")
    click.echo(f"{version.adapter}@v{version.number} {' '.join(said)}")


def _number(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        message = f"{text!r} is no number"
        raise click.BadParameter(message) from error
