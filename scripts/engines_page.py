"""Writes ``docs/engines.md`` from the engines' files; a test compares them."""

from pathlib import Path

from rankloom.validate.engines import FEATURES, Cell, Engine, Verdict, engines

PAGE = Path(__file__).parents[1] / "docs" / "engines.md"
_SIGNS = {
    Verdict.ACCEPT: "✓",
    Verdict.REJECT: "refused",
    Verdict.SILENT: "**silent**",
    Verdict.DEGRADED: "at a cost",
    Verdict.UNKNOWN: "?",
}

INTRO = """\
# Serving engines
What engines do with adapters, read in their sources. The worst is not that one refuses an adapter;
it is that it serves something else without an error. `loractl validate --engine` tells both before
anything is served:

```console
$ loractl validate ./adapter --engine vllm==0.33 --engine sglang --against ./base
```

Each engine gets a verdict, in the text, in `--format json` (`adapters[].engines`) and in
`report.engines` of the SDK:

| verdict | meaning | finding |
| --- | --- | --- |
| `accept` | it serves what was trained | none |
| `reject` | it says that it cannot, when it starts, loads the adapter or first uses it | error |
| `silent-wrong` | it serves something else, and at most logs it | error |
| `degraded` | it serves what was trained, at a cost or with a side effect | warning |
| `unknown` | nobody has read it | ends with 3 |

`vllm` is the newest version that is known, `vllm==0.33` the newest 0.33.x; a version that is not
known ends with 3, as nothing was checked. An engine that is started for larger ranks is written
`vllm==0.33,max_lora_rank=64`. The same names stand behind `--engine` of `loractl compose` and in
`engines` of a recipe, where they limit the rank; and in the [settings of a project](ci.md):

```toml
[tool.loractl.validate]
engines = ["vllm==0.33", "sglang"]
```

What shows only beside a base (`--against`) is said to be unchecked without one. Verdicts are of
the engine as it is started by default; one that is set up otherwise, or patched, may differ.
"""


def page() -> str:
    """Return the page."""
    parts = [INTRO, _matrix(), *map(_engine, engines())]
    return "\n".join(parts)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _matrix() -> str:
    lines = [
        "## Features and engines",
        "",
        _row("rule", "feature", *(f"{engine.title} {engine.version}" for engine in engines())),
        _row(*["---"] * (2 + len(engines()))),
    ]
    for name, feature in FEATURES.items():
        link = f"[{feature.rule.id}](rules/{feature.rule.id}.md)"
        signs = (_SIGNS[engine.cells[name].verdict] for engine in engines())
        lines.append(_row(link, name, *signs))
    return "\n".join([*lines, ""])


def _engine(engine: Engine) -> str:
    lines = [
        f"## {engine.title} {engine.version}",
        f"`--engine {engine.name}=={engine.version}`. {engine.read} [Repository]({engine.url}).",
        "",
        _row("feature", "verdict", "how", "read in"),
        _row(*["---"] * 4),
    ]
    for cell, names in _groups(engine).items():
        how = cell.reason + (f". {cell.remedy}" if cell.remedy else "")
        lines.append(_row(", ".join(names), cell.verdict, how, f"`{cell.source}`"))
    return "\n".join([*lines, ""])


def _groups(engine: Engine) -> dict[Cell, list[str]]:
    groups: dict[Cell, list[str]] = {}
    for name in FEATURES:
        groups.setdefault(engine.cells[name], []).append(name)
    return groups


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
