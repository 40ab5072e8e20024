"""Configs: each refused row by its id, and PEFT's own dataclass as the source of the defaults."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

import peft
import pytest

from folders import config
from rankloom.adapter import config_reader, fields
from rankloom.errors import AdapterError, NotFoundError, UnsupportedAdapterError
from rankloom.finding import Severity
from timing import fastest

if TYPE_CHECKING:
    from pathlib import Path


def rules(data: bytes | dict[str, Any]) -> list[tuple[str, str]]:
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    found, findings = config_reader.parse(text)
    errors = any(finding.severity is Severity.ERROR for finding in findings)
    assert (found is None) == errors
    return [(finding.rule, finding.severity.value) for finding in findings]


def error_of(**changes: object) -> set[str]:
    return {rule for rule, severity in rules(config(**changes)) if severity == "error"}


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("CFG003", {"peft_type": None}),
    ("CFG003", {"peft_type": "lora"}),
    ("CFG003", {"peft_type": 1}),
    ("CFG012", {"peft_type": "XLORA"}),
    ("CFG012", {"peft_type": "POLY", "r": None, "rank_dropout": 0.1}),
    *[("CFG004", {"r": r}) for r in (0, -1, "4", True, 4.0, 10**9, None, [4])],
    *[
        ("CFG005", {"lora_alpha": alpha})
        for alpha in (0, -1, 0.0, "8", True, None, [8], 10**400, 1e300)
    ],
    ("CFG004", {"rank_pattern": {"q_proj": 0}}),
    ("CFG004", {"rank_pattern": {"q_proj": "2"}}),
    ("CFG005", {"alpha_pattern": {"q_proj": -1}}),
    ("CFG001", {"alpha_pattern": ["q_proj"]}),
    ("CFG001", {"use_rslora": "yes"}),
    ("CFG001", {"use_rslora": 1}),
    ("CFG001", {"target_modules": {"q_proj": 1}}),
    ("CFG001", {"target_modules": [1]}),
    ("CFG001", {"layers_to_transform": ["1"]}),
    ("CFG001", {"base_model_name_or_path": 3}),
    ("SEC010", {"target_modules": "([a-z_.0-9]+)+!"}),
    ("SEC010", {"exclude_modules": "(a|a)*b"}),
    ("SEC010", {"rank_pattern": {"([a-z_.0-9]+)+!": 2}}),
    ("SEC010", {"alpha_pattern": {"(x+x+)+y": 2}}),
    ("SEC002", {"auto_map": {"AutoModel": "evil.Model"}}),
    ("SEC002", {"trust_remote_code": True}),
    ("SEC002", {"megatron_config": {"a": 1}}),
    ("SEC002", {"megatron_core": "evil.core"}),
    ("SEC002", {"auto_mapping": {"base_model_class": "M"}}),
    ("SEC002", {"auto_mapping": ["transformers"]}),
    ("SEC003", {"base_model_name_or_path": "file:///etc/passwd"}),
    ("SEC003", {"base_model_name_or_path": "http://169.254.169.254/latest"}),
    ("SEC003", {"base_model_name_or_path": "../../etc"}),
    ("SEC003", {"base_model_name_or_path": "models/../../etc"}),
    ("SEC003", {"base_model_name_or_path": r"\\host\share"}),
    ("CFG010", {"init_lora_weights": "corda"}),
    ("CFG010", {"init_lora_weights": "pissa_niter_16"}),
    ("CFG010", {"init_lora_weights": "loftq"}),
    ("CFG010", {"init_lora_weights": "corda"}),
    ("CFG010", {"init_lora_weights": "loftq"}),
    ("CFG010", {"init_lora_weights": "lora_ga"}),
    ("CFG011", {"init_lora_weights": "something_new"}),
    ("CFG011", {"init_lora_weights": 1}),
    ("CFG011", {"new_field": 1}),
    ("CFG011", {"new_field": 0}),
    ("CFG011", {"new_field": "x"}),
    ("CFG011", {"new_field": {"a": None}}),
]


@pytest.mark.parametrize(("rule", "changes"), REFUSED, ids=lambda value: str(value)[:50])
def test_each_broken_field_gets_its_rule(rule: str, changes: dict[str, Any]) -> None:
    assert error_of(**changes) == {rule}
    assert fastest(lambda: error_of(**changes), 3) < 0.1


@pytest.mark.parametrize(
    ("rule", "data"),
    [
        ("CFG001", b""),
        ("CFG001", b"not json"),
        ("CFG001", b"[]"),
        ("CFG001", b"\xef\xbb\xbf{}"),
        ("CFG001", json.dumps(config()).encode("utf-16")),
        ("CFG001", b'{"r": ' + b"[" * 100_000),
        ("CFG005", b'{"peft_type": "LORA", "lora_alpha": NaN}'),
        ("CFG005", b'{"peft_type": "LORA", "lora_alpha": -Infinity}'),
        ("CFG002", b'{"peft_type": "LORA", "r": 8, "r": 4}'),
        ("CFG002", b'{"peft_type": "LORA", "rank_pattern": {"a": 8, "a": 4}}'),
    ],
    ids=range(10),
)
def test_files_that_are_no_config(rule: str, data: bytes) -> None:
    assert [found for found, _ in rules(data)] == [rule]


def test_a_huge_config_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(config(revision="x" * 1_000_000)))
    found, findings = config_reader.inspect(path)
    assert found is None
    assert [finding.rule for finding in findings] == ["CFG001"]


HARMLESS: list[dict[str, Any]] = [
    {"inference_mode": False},
    {"lora_dropout": 0.1},
    {"fan_in_fan_out": True},
    {"revision": "main"},
    {"peft_version": "0.99"},
    {"megatron_core": "megatron.core"},
    {"qalora_group_size": 16},
    {"ensure_weight_tying": False},
    {"modules_to_save": []},
    {"auto_mapping": {}},
    {"new_field": None},
    {"new_field": []},
    {"new_field": {}},
    {"new_field": ""},
    {"new_field": False},
    {"eva_config": {"rho": 2.0}},
    *[{"init_lora_weights": init} for init in (True, False, "gaussian", "eva", "orthogonal")],
    {"auto_mapping": {"base_model_class": "B", "parent_library": "transformers.models.bert.x"}},
    {"lora_alpha": 16.5},
    {"target_modules": "all-linear"},
    {"target_modules": r".*\.(q|v)_proj"},
    {"layers_to_transform": 1},
]


@pytest.mark.parametrize("changes", HARMLESS, ids=lambda value: str(value)[:50])
def test_fields_without_effect_are_accepted(changes: dict[str, Any]) -> None:
    assert rules(config(**changes)) == []


@pytest.mark.parametrize("path", ["/data/llama", "~/llama", "C:\\models\\llama"])
def test_a_local_path_as_base_is_only_noted(path: str) -> None:
    assert rules(config(base_model_name_or_path=path)) == [("SEC003", "info")]


@pytest.mark.parametrize("library", ["__main__", "os", "transformersx", "train.models"])
def test_a_class_that_only_others_would_import_is_only_warned_of(library: str) -> None:
    mapping = {"base_model_class": "Net", "parent_library": library}
    assert rules(config(auto_mapping=mapping)) == [("SEC002", "warning")]


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    broken = config(r=0, lora_alpha=-1, new_field=3, auto_map={"a": "b"})
    (tmp_path / "adapter_config.json").write_text(json.dumps(broken))
    with pytest.raises(AdapterError) as caught:
        config_reader.read(tmp_path)
    found = {finding.rule for finding in caught.value.findings}
    assert found == {"CFG004", "CFG005", "CFG011", "SEC002"}
    assert not isinstance(caught.value, UnsupportedAdapterError)


def test_what_is_sound_but_unknown_is_unsupported(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(config(new_field=3)))
    with pytest.raises(UnsupportedAdapterError, match="new_field"):
        config_reader.read(tmp_path)


def test_a_folder_without_config_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"adapter_config\.json"):
        config_reader.read(tmp_path)


def test_scales_follow_the_patterns() -> None:
    found, _ = config_reader.parse(
        json.dumps(
            config(
                r=8, lora_alpha=16, rank_pattern={"q_proj": 4, r"layers\.1\..*": 2},
                alpha_pattern={"^model.layers.0.q_proj": 3},
            )
        ).encode()
    )  # fmt: skip
    assert found is not None
    scales = found.scales()
    assert scales.scale("model.layers.0.q_proj") == 3 / 4
    assert scales.scale("model.layers.1.q_proj") == 16 / 4
    assert scales.scale("model.layers.1.v_proj") == 16 / 2
    assert scales.scale("model.layers.0.v_proj") == 16 / 8
    rslora = dataclasses.replace(found, use_rslora=True).scales()
    assert rslora.scale("model.layers.1.v_proj") == 16 / math.sqrt(2)


def test_the_tables_know_every_field_of_peft_with_its_default() -> None:
    known = fields.READ | fields.IGNORED.keys() | fields.OPTIONS.keys()
    saved = json.loads(json.dumps(peft.LoraConfig().to_dict()))
    assert saved.keys() <= known, "PEFT has a new field: decide what it means for the result"
    for name, default in fields.OPTIONS.items():
        if name in saved:
            assert saved[name] == default, name
    assert rules({**saved, "base_model_name_or_path": "acme/tiny"}) == []


def test_the_tables_do_not_overlap() -> None:
    tables = [fields.READ, fields.IGNORED.keys(), fields.OPTIONS.keys()]
    assert sum(map(len, tables)) == len(set().union(*tables))


def test_peft_s_types_are_known() -> None:
    assert {kind.value for kind in peft.PeftType} <= fields.PEFT_TYPES
