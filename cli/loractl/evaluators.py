"""What scores a model for ``loractl tune``: a function in Python, or any command."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankloom.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKPOINT = "RANKLOOM_CHECKPOINT"
"""Variable that tells a command which checkpoint to score."""


def function(text: str) -> Callable[..., Any]:
    """Return the function that ``module:function`` names, the module here or installed.

    Raises:
        BadParameter: there is none.
    """
    module, _, name = text.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as for python itself; it may import more later
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"{text!r} names no function ({error}); write score:evaluate for score.py here"
        raise click.BadParameter(message) from error
    if not callable(found):
        message = f"{text!r} is no function"
        raise click.BadParameter(message)
    result: Callable[..., Any] = found
    return result


def command(text: str) -> Callable[[Path], Any]:
    """Return a function that runs a command on a checkpoint and reads the score it prints."""
    words = shlex.split(text)
    if not words:
        message = "an empty command scores nothing"
        raise click.BadParameter(message)

    def evaluate(checkpoint: Path) -> Any:  # noqa: ANN401 - the library checks it
        given = [word.replace("{}", str(checkpoint)) for word in words]
        given += [] if given != words else [str(checkpoint)]
        environment = {**os.environ, CHECKPOINT: str(checkpoint)}
        try:
            done = subprocess.run(  # noqa: S603 - the user's own command
                given, check=False, stdout=subprocess.PIPE, env=environment, text=True
            )
        except OSError as error:
            message = f"{given[0]} cannot be run: {error.strerror}"
            raise EvaluationError(message, hint="--command is run without a shell") from error
        if done.returncode:
            message = f"{shlex.join(given)} ended with {done.returncode}"
            raise EvaluationError(message, hint="what it said stands above")
        return _printed(done.stdout, given[0])

    return evaluate


def _printed(text: str, what: str) -> Any:  # noqa: ANN401 - JSON
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        last = lines[-1][:80] if lines else "nothing"
        message = f"{what} printed {last!r} last, which is no score"
        hint = "print a number, or a JSON list with one for each example, in the last line"
        raise EvaluationError(message, hint=hint) from error
