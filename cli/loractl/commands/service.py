"""Commands about the registry itself: serve and login."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8470, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Where database and blobs lie (default: those of the embedded registry).",
)
def serve(host: str, port: int, data_dir: Path | None) -> None:
    """Serve the registry of this machine over HTTP.

    On the first start one admin token is printed; it is never shown again.
    """
    from rankloom import config
    from rankloom.errors import BackendUnavailableError

    try:
        from rankloom_server.serve import serve as run
    except ModuleNotFoundError as error:
        message = f"the server needs the package {error.name!r}"
        raise BackendUnavailableError(message, hint="pip install 'rankloom[server]'") from error
    run(host, port, settings=data_dir or config.load().registry_dir)


@click.command()
@click.argument("url")
@click.option("--token", help="Without it, the token is asked for.")
@click.option("--oidc", is_flag=True, help="By the identity of this job of CI, for 15 minutes.")
def login(url: str, token: str | None, *, oidc: bool) -> None:
    """Keep the registry at URL and a token for all further commands.

    A push in a job of CI that the namespace trusts needs no login.
    """
    from rankloom import config
    from rankloom.client import Client
    from rankloom.registry import ambient

    if oidc and token:
        message = "--oidc gets a token of its own"
        raise click.UsageError(message)
    end = None
    if oidc:
        minted = ambient.exchange(url)
        given, end = minted.token, minted.expires_at
    else:
        given = token or click.prompt("token", hide_input=True)
    with Client(url, given) as client:
        client.registry.list_adapters(limit=1)  # a wrong address or token shows here, not later
    path = config.remember(url, given, expires_at=end)
    click.echo(f"logged in to {url} (kept in {path})")
