"""Manual pages as plain paragraphs, and German paragraphs aligned with their English originals.

The German pages are generated from the English ones paragraph by paragraph, so a page and its
translation have the same headings in the same order and, within a heading, the same paragraphs.
That is all the alignment needs; where the counts differ, the heading is dropped.
"""

import gzip
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TRANSLATION_HEADING = "ÜBERSETZUNG"

_BREAKS = frozenset({"PP", "P", "LP", "HP", "RS", "RE", "sp", "br", "IP", "TQ"})
_FONTS = frozenset({"B", "I", "SM", "SB"})
_ALTERNATING = frozenset({"BR", "BI", "IR", "IB", "RB", "RI"})
_BLOCKS = {"nf": "fi", "EX": "EE", "TS": "TE"}
_GLYPHS = {
    "aq": "'", "cq": "'", "oq": "'", "dq": '"', "lq": '"', "rq": '"', "em": " - ", "en": "-",
    "bu": "", "mi": "-", "ha": "^", "ti": "~", "rs": "\\", "ga": "`", "mu": "x", "co": "(c)",
}  # fmt: skip
_GLYPH = re.compile(r"\\[*]?(?:\((..)|\[([^\]]*)\])")
_INVISIBLE = re.compile(r"\\f(?:\[[^\]]*\]|\(..|.)|\\s[+-]?\d+|\\[&,/^|:%c!)]")


@dataclass(frozen=True)
class Heading:
    """One heading of a page with the paragraphs below it."""

    title: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """A manual page: its section number and its headings in order."""

    section: str
    headings: tuple[Heading, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the NAME line lists."""
        return tuple(name.strip() for name in self._name_line[0].split(",") if name.strip())

    @property
    def summary(self) -> str:
        """The one-line summary of the NAME line, or an empty string."""
        return self._name_line[1]

    @property
    def _name_line(self) -> tuple[str, str]:
        first = self.headings[0].paragraphs if self.headings else ()
        names, _, summary = " ".join(first).partition(" - ")
        return names, summary.strip()

    def paragraphs(self, title: str) -> tuple[str, ...]:
        """The paragraphs below the first heading called `title`."""
        return next((h.paragraphs for h in self.headings if h.title == title), ())


def read_pages(folder: Path) -> dict[str, Page]:
    """Read every page below `folder`/man*/, keyed by its path relative to `folder`.

    Pages that are links to others appear once, under the name they link to; pages in the mdoc
    language are left out, because their macros carry text in ways this reader does not know.
    """
    pages = {}
    for path in sorted(folder.glob("man[1-8]/*.gz")):
        source = gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
        if path.is_symlink() or source.startswith(".so ") or "\n.Dd " in source:
            continue
        pages[str(path.relative_to(folder))] = Page(path.parent.name[3:], tuple(_headings(source)))
    return pages


def aligned_paragraphs(english: Page, german: Page) -> Iterator[tuple[str, str]]:
    """Yield (German, English) paragraphs that stand at the same place of both pages."""
    translated = [h for h in german.headings if h.title != TRANSLATION_HEADING]
    if len(translated) != len(english.headings):
        return
    for source, target in zip(english.headings, translated, strict=True):
        if len(source.paragraphs) == len(target.paragraphs):
            yield from zip(target.paragraphs, source.paragraphs, strict=True)


def _headings(source: str) -> Iterator[Heading]:
    title, lines = "", [""]
    for macro, text in _events(source):
        if macro in {"SH", "SS"}:
            if title:
                yield Heading(title, _paragraphs(lines))
            title, lines = text, [""]
        elif macro == "break":
            lines.append("")
        else:
            lines[-1] += f" {text}"
    if title:
        yield Heading(title, _paragraphs(lines))


def _paragraphs(lines: list[str]) -> tuple[str, ...]:
    return tuple(text for text in (" ".join(line.split()) for line in lines) if text)


def _events(source: str) -> Iterator[tuple[str, str]]:
    """Yield ("SH" | "SS", title), ("break", "") and ("text", text) in reading order."""
    closing, tag_follows = "", False
    for line in source.splitlines():
        macro, arguments = _macro(line)
        if closing:
            closing = "" if macro == closing else closing
        elif macro in _BLOCKS:
            closing = _BLOCKS[macro]
        elif macro in {"SH", "SS"}:
            yield macro, " ".join(arguments)
        elif macro in _BREAKS or macro == "TP":
            yield "break", ""
            tag_follows = macro == "TP"
        elif text := _text(macro, arguments):
            yield "text", text
            # The line after .TP is the term that the next lines explain: not running text.
            if tag_follows:
                yield "break", ""
            tag_follows = False


def _macro(line: str) -> tuple[str, list[str]]:
    """Split a line into its macro ("" for running text) and its unescaped arguments."""
    line = re.sub(r'\\".*', "", line)
    if not line.startswith((".", "'")):
        return "", [_unescape(line)]
    name, _, rest = line[1:].strip().partition(" ")
    # Escaped blanks join words of one argument; a no-break space survives the splitting.
    rest = rest.replace("\\ ", "\xa0").replace("\\(dq", "\xab")
    return name, [_unescape(argument) for argument in _split(rest)]


def _split(arguments: str) -> list[str]:
    lexer = shlex.shlex(arguments, posix=True)
    lexer.whitespace, lexer.whitespace_split = " \t", True
    lexer.quotes, lexer.escape, lexer.commenters = '"', "", ""
    try:
        return list(lexer)
    except ValueError:  # troff closes an open quote at the end of the line
        return arguments.replace('"', "").split()


def _text(macro: str, arguments: list[str]) -> str:
    if macro in _ALTERNATING:
        return "".join(arguments)
    return " ".join(arguments) if macro in _FONTS or not macro else ""


def _unescape(text: str) -> str:
    text = _INVISIBLE.sub("", text)
    text = _GLYPH.sub(lambda match: _GLYPHS.get(match[1] or match[2], ""), text)
    for escape, plain in (("\\-", "-"), ("\\~", " "), ("\\ ", " "), ("\\0", " "), ("\\e", "\\")):
        text = text.replace(escape, plain)
    return text.replace("\xa0", " ")
