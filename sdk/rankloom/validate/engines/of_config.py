"""Features that a config alone shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.adapter.fields import is_empty
from rankloom.validate.engines.feature import Hit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rankloom.validate.engines.selection import Chosen
    from rankloom.validate.engines.subject import Subject

VOCABULARY = frozenset(["embed_tokens", "lm_head", "wte", "word_embeddings", "embed_out"])
"""Last names of modules that have a row for each token."""

HEADS = frozenset(["classifier", "score"])
"""Names of modules that classify, as engines know them."""

_NUMBERS = frozenset(["r", "lora_alpha"])
_WORDS = frozenset(["all", "all-linear"])


def _pattern(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _ranks(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return every rank that the config names, by what names it."""
    patterns = _pattern(config, "rank_pattern")
    return {"r": config.get("r"), **{f"rank_pattern[{key!r}]": v for key, v in patterns.items()}}


def fields(subject: Subject, chosen: Chosen) -> Iterator[Hit]:
    """Fields that the engine needs are missing, or no number that it can divide by."""
    required = chosen.engine.reads.required
    for name in required:
        if name not in subject.config:
            yield Hit(f"the config has no {name}", name)
        elif name in _NUMBERS and not isinstance(subject.config[name], int | float):
            yield Hit(f"{name} is {subject.config[name]!r}", name)
    for name, value in _ranks(subject.config).items() if "r" in required else ():
        sound = value > 0 if isinstance(value, int) else name == "r" and isinstance(value, float)
        if name.partition("[")[0] in subject.config and not sound:
            yield Hit(f"{name} is {value!r}", name.partition("[")[0])


def kind(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """The adapter is no LoRA."""
    if (found := subject.config.get("peft_type")) != "LORA":
        yield Hit(f"peft_type is {found}", "peft_type")


def rank(subject: Subject, chosen: Chosen) -> Iterator[Hit]:
    """A rank is larger than the engine is made for."""
    ranks = {k: v for k, v in _ranks(subject.config).items() if isinstance(v, int | float)}
    largest = max(ranks, key=lambda name: ranks[name], default=None)
    if largest and chosen.limit is not None and ranks[largest] > chosen.limit:
        what = f"{largest} is {ranks[largest]}, over {chosen.limit}"
        yield Hit(what, largest.partition("[")[0])


def truthy(name: str) -> Callable[[Subject, Chosen], Iterator[Hit]]:
    """Return what finds that a field is set to anything but nothing."""

    def find(subject: Subject, _: Chosen) -> Iterator[Hit]:
        if value := subject.config.get(name):
            yield Hit(f"{name} is {str(value)[:60]}", name)

    return find


def rank_pattern(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """Some modules have another rank than ``r``."""
    r = subject.config.get("r")
    if others := [k for k, v in _pattern(subject.config, "rank_pattern").items() if v != r]:
        yield Hit(f"rank_pattern gives {others[0]} another rank", "rank_pattern")


def alpha_pattern(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """Some modules have another alpha than ``lora_alpha``."""
    alpha = subject.config.get("lora_alpha")
    patterns = _pattern(subject.config, "alpha_pattern")
    if others := [key for key, value in patterns.items() if value != alpha]:
        yield Hit(f"alpha_pattern gives {others[0]} another alpha", "alpha_pattern")


def bias(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """Biases were trained."""
    if (value := subject.config.get("bias", "none")) != "none":
        yield Hit(f"bias is {value}", "bias")
    yield from truthy("lora_bias")(subject, _)


def _saved(subject: Subject, chosen: Chosen) -> list[str]:
    saved = subject.config.get("modules_to_save") or []
    names = saved if isinstance(saved, list) else [saved]
    return [str(name) for name in names if str(name) not in chosen.engine.reads.saved]


def saved(test: Callable[[str], bool]) -> Callable[[Subject, Chosen], Iterator[Hit]]:
    """Return what finds saved modules whose name passes a test."""

    def find(subject: Subject, chosen: Chosen) -> Iterator[Hit]:
        names = _saved(subject, chosen)
        if found := [name for name in names if test(name)]:
            yield Hit(f"modules_to_save holds {', '.join(found[:3])}", "modules_to_save")

    return find


def init(subject: Subject, chosen: Chosen) -> Iterator[Hit]:
    """The adapter was made against a base that its initialisation had changed."""
    value = subject.config.get("init_lora_weights")
    if isinstance(value, str) and value.lower() not in chosen.engine.reads.inits:
        yield Hit(f"init_lora_weights is {value}", "init_lora_weights")


def expression(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """The modules are named by a regular expression."""
    value = subject.config.get("target_modules")
    if isinstance(value, str) and value not in _WORDS:
        yield Hit(f"target_modules is the expression {value[:60]}", "target_modules")


def alpha_fraction(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """Alpha is written as a number with a point."""
    value = subject.config.get("lora_alpha")
    if type(value) is float or (type(value) is int and value < 0):
        yield Hit(f"lora_alpha is {value}", "lora_alpha")


def alpha_zero(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """Alpha is zero, so that the adapter has no effect."""
    if not is_empty(value := subject.config.get("lora_alpha")) and value == 0:
        yield Hit("lora_alpha is 0", "lora_alpha")
