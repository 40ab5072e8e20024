"""Where a run's result goes: standard output, files, and what GitHub Actions shows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rankloom.validate.outcome import Outcome

FORMATS = ("text", "json", "sarif", "junit", "github")


@dataclass(frozen=True, slots=True)
class Output:
    """One output: its format, and its file (``None``: standard output)."""

    kind: str
    file: Path | None = None


def plan(kind: str | None, files: Sequence[str]) -> list[Output]:
    """Return the outputs that the options ask for.

    Args:
        kind: ``--format``; ``None``: that of the place, ``github`` in an Actions job.
        files: each ``--output``, as ``FILE`` or ``FORMAT=FILE``.
    """
    outputs = [_output(text, kind or "text") for text in files]
    bare = any(str(output.file) == text for output, text in zip(outputs, files, strict=True))
    default = "github" if os.environ.get("GITHUB_ACTIONS") == "true" else "text"
    return [Output(default if bare else kind or default), *outputs]


def _output(text: str, kind: str) -> Output:
    named, equals, file = text.partition("=")
    return Output(named, Path(file)) if equals and named in FORMATS else Output(kind, Path(text))


def write(outcome: Outcome, outputs: Iterable[Output]) -> None:
    """Write all outputs; in an Actions job, the summary of the step as well."""
    for output in outputs:
        text = render(outcome, output.kind)
        if output.file is None:
            click.echo(text, nl=False)
        else:
            output.file.parent.mkdir(parents=True, exist_ok=True)
            output.file.write_text(click.unstyle(text), "utf-8")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        from rankloom.validate.formats import github

        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(github.summary(outcome))


def render(outcome: Outcome, kind: str) -> str:
    """Return the result in one of :data:`FORMATS`."""
    from loractl.validation import text
    from rankloom.validate.formats import document, github, junit, sarif

    renderers: dict[str, Callable[[Outcome], str]] = {
        "text": text.render,
        "json": document.render,
        "sarif": sarif.render,
        "junit": junit.render,
        "github": lambda result: github.render(result) + text.render(result),
    }
    return renderers[kind](outcome)
