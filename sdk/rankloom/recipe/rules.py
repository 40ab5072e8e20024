"""Rules of compositions, with their reasons; those of single adapters are in validate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.finding import Severity
from rankloom.validate.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

_E, _W = Severity.ERROR, Severity.WARNING
_APART = "Weaken one of them there, with a weight for each layer, or keep them apart."

_ALL = (
    Rule(
        "MRG001",
        _E,
        "All adapters were made for one base",
        "A delta means something only beside the weights that it was trained with.",
        "Compose only adapters of the same base.",
    ),
    Rule(
        "MRG002",
        _E,
        "Factors that are added to each other have one rank",
        "PEFT's linear adds A to A and B to B, which only factors of one rank allow.",
        "Use the method exact, which takes any ranks.",
    ),
    Rule(
        "MRG003",
        _E,
        "Weights and parameters are what the method takes",
        "A weight that is no number, one too few, or a density of 0 would be another composition "
        "than the one that was meant.",
        "Read what the message and its hint say of the value.",
    ),
    Rule(
        "MRG004",
        _W,
        "No adapter stands there twice",
        "Its weights add up, and methods that elect or average count it twice.",
        "Name it once, with the sum of the weights.",
    ),
    Rule(
        "MRG005",
        _E,
        "No two adapters put values of their own in one place",
        "Of two saved modules, or of a saved module and a change that is computed from the base's, "
        "one would be lost.",
        "Compose adapters of which one at most replaces it.",
    ),
    Rule(
        "MRG006",
        _W,
        "Every filter of a weight decides something",
        "A filter that holds for no target is mostly a slip of the pen.",
        "Compare it with the names of the targets in the plan.",
    ),
    Rule(
        "MRG007",
        _E,
        "A recipe is understood to the last key",
        "A key that is passed over may be the one that mattered.",
        "Correct the line that the message names.",
    ),
    Rule(
        "MRG008",
        _E,
        "What is locked is made again, byte for byte",
        "Another version of an adapter, another weight or another rounding is another result.",
        "Compose without the lock, or with what it was made of.",
    ),
    Rule(
        "MRG009",
        _E,
        "What was written is what the adapters give",
        "Tiles of every result are computed again in float64, from the factors of the adapters or "
        "of the method, and compared with the file. A model's outputs do not show a wrong merge.",
        "Repeat it; memory or disk may be faulty. If it happens again, report it.",
    ),
    Rule(
        "MRG010",
        _E,
        "Nothing new is made of a yanked version",
        "Somebody withdrew it for a reason, which the message gives.",
        "Name another version. What was composed of it before is made again with --locked.",
    ),
    Rule(
        "MRG011",
        _W,
        "A and B are not combined apart",
        "(ΣwB)·(ΣwA) holds products of one adapter's B with another's A, which nobody trained: of "
        "two independent adapters they are as large as the sum itself.",
        "Use the method exact; peft_linear is there to make again what PEFT made.",
        "PEFT 0.21.2 does so by default: add_weighted_adapter(combination_type='linear').",
    ),
    Rule(
        "MRG012",
        _E,
        "What is saved has a form in PEFT",
        "DoRA, IA³, rotations and their like compute from the base: their sum with others is no "
        "product of two factors, and any folder of factors would be another change.",
        "Apply the composition to its base instead: 'loractl apply'.",
    ),
    Rule(
        "NUM004",
        _E,
        "No value overflows",
        "An infinity in a weight makes every output NaN.",
        "Use smaller weights, or a dtype with a larger range.",
    ),
    Rule(
        "NUM005",
        _E,
        "Something is left of what is added to a tensor",
        "Less than half a unit in the last place of every element vanishes in the rounding, and "
        "the result is the base.",
        "Give larger weights or a wider dtype, or allow it with --allow-no-effect.",
    ),
    Rule(
        "INT001",
        _W,
        "No delta drowns another",
        "The weaker adapter is hardly heard where the other is many times as long.",
        "Change the weights, or use the method norm_balanced.",
    ),
    Rule(
        "INT002",
        _W,
        "Deltas do not point against each other",
        "Each takes back what the other learned.",
        _APART,
    ),
    Rule(
        "INT003",
        _W,
        "Deltas do not cancel",
        "Much of what the adapters add is lost in the sum.",
        _APART,
    ),
    Rule(
        "INT004",
        _W,
        "Deltas do not crowd the same directions",
        "What both write to or read from the same few directions cannot be told apart.",
        "Evaluate the composition before it is used; swap layers, or merge in the core space.",
    ),
    Rule(
        "INT005",
        _W,
        "Deltas agree on signs where both are strong",
        "Elements with opposite signs weaken each other.",
        "Use a method that elects signs, such as ties.",
    ),
)

RULES: Mapping[str, Rule] = {rule.id: rule for rule in _ALL}
"""By id. Those of interference (INT) warn, and stop nothing by themselves."""
