"""Writes ``docs/bad-inputs.md`` from the corpus of the tests; a test compares the two."""

import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from bad_inputs.by_hand import Hand  # noqa: E402 - the tests are no package that is installed
from bad_inputs.corpus import ALL  # noqa: E402
from bad_inputs.registries import Served  # noqa: E402
from bad_inputs.row import FITTED, VALIDATE, Case, Never, Row  # noqa: E402

PAGE = ROOT / "docs/bad-inputs.md"

HEAD = """\
# Bad inputs
Broken, hostile and mistaken inputs, and what each gets from the command that meets it: always the
outcome that stands here, within one second of processor time and 256 MB above the interpreter and
its libraries, never a traceback, never a part of an output. `tests/bad_inputs` runs all of them.

*Push* says what a push does with it, be it by `loractl push` or by requests that somebody sends by
hand, to the embedded registry and over HTTP: a registry checks by itself what a client should have
checked. It takes what rankloom treats exactly, though others may not.

| # | what is wrong | met by | outcome | push |
| --- | --- | --- | --- | --- |
"""

NEVER = """
## What cannot occur
| # | what | why |
| --- | --- | --- |
"""


def page() -> str:
    """Return the page's text."""
    rows = sorted(ALL, key=lambda row: row.number)
    met = (_row(row.number, row.name, *_cells(row)) for row in rows if not isinstance(row, Never))
    never = (_row(row.number, row.name, row.reason) for row in rows if isinstance(row, Never))
    return HEAD + "".join(met) + NEVER + "".join(never)


def _row(number: int, name: str, *cells: str) -> str:
    texts = (str(number), name, *cells)
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |\n"


def _cells(row: Case) -> tuple[str, str, str]:
    """Return what meets a row, its outcome, and what a push does with it."""
    if isinstance(row, Hand):
        status = "HTTP " if row.answer.isdecimal() else ""
        return "a request by hand", status + _linked(row.answer), ""
    if isinstance(row, Served):
        lie = " over a network that lies" if row.lie else ""
        return f"`loractl {_command(row.command)}`{lie}", _outcome(row.rule, row.code), ""
    if isinstance(row, Row):
        found = _outcome(row.rule, row.code, row.severity)
        return f"`loractl {_command(row.command)}`", found, _push(row)
    raise TypeError(row)


def _command(arguments: Iterable[str]) -> str:
    """Return a command as it is typed, with what cannot be seen spelled out."""
    typed = (part if part.isascii() else ascii(part)[1:-1] for part in arguments)
    return " ".join(part if len(part) < 80 else "…" for part in typed if part != "--json")


def _outcome(rule: str, code: int, severity: str = "error") -> str:
    if not rule:
        return "passes" if code == 0 else f"exit code {code}"
    weight = f", {severity}" if severity != "error" else ""
    return f"{_linked(rule)}{weight}, exit code {code}"


def _linked(text: str) -> str:
    is_rule = text[:-3].isupper() and text[-3:].isdecimal()
    return f"[{text}](rules/{text}.md)" if is_rule else text


def _push(row: Row) -> str:
    if row.command not in {VALIDATE, FITTED}:
        return ""
    if not row.refused:
        return "takes it"
    return "refuses it" if row.refused == row.rule else f"refuses it ({_linked(row.refused)})"


if __name__ == "__main__":
    PAGE.write_text(page())
