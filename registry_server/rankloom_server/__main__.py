"""``python -m rankloom_server``: the server from its environment, for containers.

::

    python -m rankloom_server [serve]                   serve on RANKLOOM_SERVER_HOST and _PORT
    python -m rankloom_server migrate                   bring the database to the present schema
    python -m rankloom_server token NAME SCOPE…         make a token (read, push:acme, admin …)
    python -m rankloom_server revoke NAME               end a token
"""

from __future__ import annotations

import argparse
import os
import sys

from pydantic import ValidationError

from rankloom.errors import NotFoundError, RankloomError
from rankloom_server import auth
from rankloom_server.access import Grant
from rankloom_server.settings import Settings
from rankloom_server.wiring import open_database


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        _run(parsed, Settings())
    except ValidationError as error:
        lines = [f"RANKLOOM_SERVER_{_name(one['loc'])}: {one['msg']}" for one in error.errors()]
        print("\n".join(lines), file=sys.stderr)
        return 2
    except RankloomError as error:
        print(f"error: {error.message}\n{error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rankloom_server")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve (the default)")
    commands.add_parser("migrate", help="bring the database to the present schema")
    token = commands.add_parser("token", help="make a token and show it once")
    token.add_argument("name")
    token.add_argument("scopes", nargs="+", help="read, push or admin; push:acme, push:acme/zh")
    commands.add_parser("revoke", help="end a token").add_argument("name")
    return parser


def _run(parsed: argparse.Namespace, settings: Settings) -> None:
    if parsed.command in {None, "serve"}:
        from rankloom_server.serve import HOST, PORT, serve

        host = os.environ.get("RANKLOOM_SERVER_HOST", HOST)
        serve(host, int(os.environ.get("RANKLOOM_SERVER_PORT", PORT)), settings=settings)
        return
    engine = open_database(settings)
    if parsed.command == "token":
        print(auth.create(engine, parsed.name, map(Grant.parse, parsed.scopes)))
    if parsed.command == "revoke" and not auth.revoke(engine, parsed.name):
        message = f"there is no token {parsed.name} in use"
        raise NotFoundError(message, hint="a revoked or expired token is not in use")
    engine.dispose()


def _name(where: tuple[int | str, ...]) -> str:
    return "_".join(map(str, where)).upper()


if __name__ == "__main__":
    sys.exit(main())
