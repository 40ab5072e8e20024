"""Training pairs from manual pages: German with English sentences, questions with summaries.

No pair joins a German text with the summary that answers it: each adapter learns its own half.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from manpages import Page, aligned_paragraphs, read_pages

Pair = tuple[str, str]

SHORTEST, LONGEST = 15, 130
MOST_SHARED = 0.25
# A page's first paragraphs say what it is for; later ones go into details.
PARAGRAPHS, SENTENCES = 2, 2
LONGEST_QUERY = 100

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-ZÄÖÜ])")
_BRACKETS = re.compile(r"\([^)]*\)")
# Where the first clause of a sentence ends.
_CLAUSE_END = re.compile(
    r"[;:]| - |(?=\s(?:which|where|whose)\s)"
    r"|, (?=(?:and|or|which|where|but|if|as|so|since|unless|while|such|in|storing|using)\b)"
)
_KIND = r"(?:functions?|calls?|macros?|programs?|utility|commands?|service|tool|files?|devices?)"
# "The function", "This library function is used to", "... is a tool that", up to the verb.
_PREDICATE = re.compile(
    r"(?:(?:The|This|These)\s+)?"
    rf"(?:(?:and|or|,|library|system|following|GNU|of|is|are|{_KIND})\s+)*?"
    rf"(?:{_KIND}\s+)?"
    rf"(?:is an? (?:[\w-]+ )*?{_KIND} (?:that|which|to)\s+"
    r"|(?:is|are|can be|may be) used (?:to|for)\s+"
    r"|(?:can|may)\s+)?"
    r"(?P<verb>[a-z]+)\s+(?P<rest>.+)$"
)
_ORDER = re.compile(r"(?P<verb>[A-Z][a-z]+)\s+(?P<rest>.+)$")
_OPENINGS = (
    "How do I",
    "How can I",
    "What do I use to",
    "How does one",
    "With what can I",
    "How does a program",
)
_ASKED_FOR = {
    "1": "Which command",
    "2": "Which system call",
    "3": "Which function",
    "4": "Which device",
    "5": "Which file",
    "8": "Which command",
}
_HISSING = ("s", "sh", "ch", "x")


@dataclass(frozen=True)
class Entry:
    """The one-line summary of an English page and what one might ask to find it."""

    summary: str
    queries: tuple[str, ...]


def language_pairs(inputs: Path) -> list[Pair]:
    """German summaries and sentences with their English originals."""
    english, german = _manuals(inputs)
    pairs: dict[Pair, None] = {}
    for path in sorted(english.keys() & german.keys()):
        pairs[german[path].summary, english[path].summary] = None
        for pair in aligned_paragraphs(english[path], german[path]):
            pairs.update(dict.fromkeys(_sentences(pair)))
    return [pair for pair in pairs if _usable(pair)]


def search_entries(inputs: Path) -> list[Entry]:
    """English pages as entries of a search: statements and questions, and the summary to find."""
    english, _ = _manuals(inputs)
    verbs = _verbs(english.values())
    # Pages for each 8-bit character set differ in a number only: there is nothing to ask for.
    pages = (page for page in english.values() if "character set encoded" not in page.summary)
    entries = (Entry(page.summary, tuple(_queries(page, verbs))) for page in pages)
    return [entry for entry in entries if entry.summary and entry.queries]


def _verbs(pages: Iterable[Page]) -> frozenset[str]:
    """Words that begin summaries of commands and functions more than once: nearly all verbs."""
    first = Counter(page.summary.partition(" ")[0] for page in pages if page.section in "1238")
    return frozenset(word for word, times in first.items() if times > 1 and word.islower())


def _manuals(inputs: Path) -> tuple[dict[str, Page], dict[str, Page]]:
    folder = inputs / "man/usr/share/man"
    english, german = read_pages(folder), read_pages(folder / "de")
    if not english or not german:
        raise SystemExit(f"no manual pages in {folder}; run: sh examples/get_inputs.sh {inputs}")
    return english, german


def _sentences(pair: Pair) -> list[Pair]:
    """Split both sides into sentences where the translation kept their number."""
    german, english = (_SENTENCE_END.split(side) for side in pair)
    return list(zip(german, english, strict=True)) if len(german) == len(english) else [pair]


def _usable(pair: Pair) -> bool:
    # Names and numbers are equal in both languages. Where they make up much of a text, partners
    # are found by them alone, and the pair teaches nothing about the language.
    german, english = (set(_WORD.findall(side.lower())) for side in pair)
    fits = all(SHORTEST <= len(side) <= LONGEST for side in pair)
    return fits and len(german & english) <= MOST_SHARED * min(len(german), len(english))


def _queries(page: Page, verbs: Collection[str]) -> Iterator[str]:
    """Yield statements and questions that the page's summary answers, without its names."""
    for paragraph in page.paragraphs("DESCRIPTION")[:PARAGRAPHS]:
        for sentence in _SENTENCE_END.split(paragraph)[:SENTENCES]:
            statement = _without_names(page, sentence)
            candidates = (_clause(statement), *_questions(page.section, statement, verbs))
            yield from (text for text in candidates if SHORTEST <= len(text) <= LONGEST_QUERY)


def _questions(section: str, statement: str, verbs: Collection[str]) -> Iterator[str]:
    """Turn "The function returns the size." into questions for what returns the size."""
    match = _PREDICATE.match(statement) or _ORDER.match(statement)
    verb = _infinitive(match["verb"].lower(), verbs) if match else None
    if match is None or verb is None:
        return
    rest = _clause(match["rest"])
    yield from (f"{opening} {verb} {rest}?" for opening in _OPENINGS)
    yield f"{_ASKED_FOR.get(section, 'What')} {_third_person(verb)} {rest}?"


def _infinitive(verb: str, verbs: Collection[str]) -> str | None:
    """The infinitive among `verbs`, the words that begin summaries, or None."""
    forms = (verb, verb.removesuffix("s"), verb.removesuffix("es"), f"{verb[:-3]}y")
    return next((form for form in forms if form in verbs), None)


def _third_person(verb: str) -> str:
    if verb.endswith("y") and verb[-2:-1] not in "aeiou":
        return f"{verb[:-1]}ies"
    return f"{verb}es" if verb.endswith(_HISSING) else f"{verb}s"


def _clause(sentence: str) -> str:
    """The first clause of a sentence, without remarks in brackets."""
    return " ".join(_CLAUSE_END.split(_BRACKETS.sub("", sentence))[0].split()).rstrip(" .,")


def _without_names(page: Page, text: str) -> str:
    """Take out the names of the page: whoever searches does not know them yet."""
    for name in page.names:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?:\(\)|\(\d\))?(?!\w)", "", text)
    return " ".join(text.split())
