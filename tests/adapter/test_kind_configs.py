"""Configs of the other types: every field of PEFT's own classes is in a table, with its default."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import peft
import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from folders import config
from rankloom.adapter import config_reader, fields, kind_config, kinds
from rankloom.finding import Finding, Severity

if TYPE_CHECKING:
    from rankloom.adapter.config import AdapterConfig

CLASSES = {kind.value: cls for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
NOT_SAVED = {"runtime_config"}
"""PEFT takes it out before it writes the file."""

DIFFERENT = {("TRAINABLE_TOKENS", "token_indices"), ("ADALORA", "rank_pattern")}


def fields_of(peft_type: str) -> dict[str, Any]:
    """Return names and defaults of a config class; some cannot be made without arguments."""
    found = {}
    for item in dataclasses.fields(CLASSES[peft_type]):
        missing = dataclasses.MISSING
        default = item.default if item.default is not missing else None
        if item.default_factory is not missing:
            default = item.default_factory()
        if item.name not in NOT_SAVED:
            found[item.name] = default
    return found


def parse(**changes: object) -> tuple[AdapterConfig | None, list[Finding]]:
    value = {key: item for key, item in config(**changes).items() if item is not ...}
    return config_reader.parse(json.dumps(value).encode())


def minimal(peft_type: str, **changes: object) -> tuple[AdapterConfig | None, list[Finding]]:
    own = {"r": ..., "lora_alpha": ...}
    return parse(**{**own, "peft_type": peft_type, **changes})


OURS = sorted(kinds.KINDS.keys() & CLASSES.keys())


@pytest.mark.parametrize("peft_type", OURS)
def test_every_field_of_peft_is_in_one_table(peft_type: str) -> None:
    kind = kinds.KINDS[peft_type]
    saved = fields_of(peft_type)
    assert saved.keys() <= kind_config.known(kind), "a new field: what does it mean for W′?"
    tables = [kind.fields.keys(), kind.training.keys(), kind.fixed.keys()]
    common = fields.COMMON_READ | fields.COMMON_IGNORED.keys() | fields.COMMON_OPTIONS.keys()
    assert sum(map(len, tables)) == len(kind.known)
    assert kind.known & common <= {"init_weights"}, "only what it reads in its own way"


@pytest.mark.parametrize("peft_type", OURS)
def test_defaults_are_those_of_peft(peft_type: str) -> None:
    kind = kinds.KINDS[peft_type]
    ours = {name: item.default for name, item in kind.fields.items()} | kind.fixed
    for name, default in fields_of(peft_type).items():
        if name in ours and (peft_type, name) not in DIFFERENT:
            same = ours[name] == default or (not ours[name] and not default)
            assert same, f"{name}: {ours[name]!r} is {default!r} in PEFT"


@pytest.mark.parametrize("peft_type", OURS)
def test_a_config_with_peft_s_defaults_is_read(peft_type: str) -> None:
    kind = kinds.KINDS[peft_type]
    found, findings = minimal(peft_type)
    assert findings == []
    assert found is not None
    assert found.peft_type == peft_type
    assert found.options.keys() == kind.fields.keys()


@pytest.mark.parametrize("peft_type", OURS)
def test_a_field_that_no_table_knows_is_refused(peft_type: str) -> None:
    _, findings = minimal(peft_type, new_field=1)
    assert [(finding.rule, finding.where) for finding in findings] == [("CFG011", "new_field")]


@pytest.mark.parametrize(
    ("peft_type", "name"),
    [(kind, name) for kind in OURS for name in kinds.KINDS[kind].fixed],
    ids=str,
)
def test_a_field_that_must_stand_at_its_default_is_refused(peft_type: str, name: str) -> None:
    _, findings = minimal(peft_type, **{name: {"another": 1}})
    assert [(finding.rule, finding.where) for finding in findings] == [("CFG012", name)]


@pytest.mark.parametrize(
    ("peft_type", "name"),
    [(kind, name) for kind in OURS for name in kinds.KINDS[kind].fields],
    ids=str,
)
def test_a_field_of_the_wrong_sort_is_an_error(peft_type: str, name: str) -> None:
    found, findings = minimal(peft_type, **{name: {"(x+x+)+y": ["wrong"]}})
    assert found is None
    assert {finding.where.partition("[")[0] for finding in findings} == {name}
    assert {finding.rule for finding in findings} <= {"CFG001", "CFG004", "CFG005", "SEC010"}


def test_each_type_of_peft_is_read_or_refused_with_a_reason() -> None:
    assert {*kinds.KINDS, *kinds.UNMERGEABLE, "LORA"} >= CLASSES.keys()
    assert not kinds.KINDS.keys() & kinds.UNMERGEABLE.keys()


@pytest.mark.parametrize("peft_type", sorted(kinds.UNMERGEABLE))
def test_what_is_no_change_of_weights_says_why_and_what_to_do(peft_type: str) -> None:
    found, findings = minimal(peft_type, num_virtual_tokens=3)
    assert found is None
    (finding,) = findings
    assert (finding.rule, finding.severity) == ("CFG012", Severity.ERROR)
    assert peft_type in finding.message
    assert kinds.UNMERGEABLE[peft_type].why in finding.message
    assert finding.fix


def test_options_by_module_follow_their_patterns() -> None:
    patterns = {"rank_pattern": {"q_proj": 3, r"^model\.v_proj": 5}, "alpha_pattern": {"q_proj": 6}}
    found, _ = minimal("LOHA", r=2, alpha=4, **patterns)
    assert found is not None
    rank, alpha = found.by_module("r", "rank_pattern"), found.by_module("alpha", "alpha_pattern")
    modules = ("model.q_proj", "model.v_proj", "a.model.v_proj")
    assert [rank(module) for module in modules] == [3, 5, 2]
    assert [alpha(module) for module in modules] == [6, 4, 4]


def test_the_masks_of_adalora_count_what_is_left() -> None:
    masks = {"model.q.lora_E": [True, False, True], "model.v.lora_E": [False] * 3}
    found, _ = minimal("ADALORA", init_r=3, rank_pattern=masks)
    assert found is not None
    assert found.options["rank_pattern"] == {"model.q": 2, "model.v": 0}


def test_a_dataclass_of_peft_is_the_oracle() -> None:
    """The tables above would also agree with an empty class."""
    assert len(fields_of("LOHA")) > 15
    assert fields_of("LOHA")["alpha"] == peft.LoHaConfig().alpha
