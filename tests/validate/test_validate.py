"""Reports: every rule with an adapter that breaks it and one that does not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import rankloom
from folders import PREFIX, SHAPES, adapter, base, base_tensors, config, factors, tensor
from rankloom.adapter import reader as adapters
from rankloom.base import reader as bases
from rankloom.base.fingerprint import fingerprint
from rankloom.errors import (
    AdapterError,
    IncompatibleError,
    NotFoundError,
    RankloomError,
    UnsupportedAdapterError,
)
from rankloom.finding import Severity
from rankloom.fingerprint import Fingerprint, Level
from rankloom.registry.base_record import from_record, to_record
from rankloom.tensorfile.values import bf16_bits
from rankloom.validate import RULES, Report, Rule, validate

if TYPE_CHECKING:
    from rankloom.base.model import Base
from timing import fastest

Q = "model.layers.0.self_attn.q_proj"
ARRAYS = base_tensors()

NOT_ASKED = {
    **{rule: "no engine was named" for rule in RULES if rule.startswith("ENG")},
    **dict.fromkeys(["PRB001", "PRB002"], "no probe was asked for"),
}


def rules(report: Report, severity: Severity = Severity.ERROR) -> set[str]:
    return {found.rule for found in report.findings if found.severity is severity}


def against(
    folder: Path, arrays: dict[str, np.ndarray[Any, Any]], **fields: object
) -> tuple[Base, Fingerprint]:
    content = {name: tensor(values) for name, values in arrays.items()}
    found = bases.read(base(folder, content, **fields))
    return found, fingerprint(found)


def test_a_sound_adapter_on_its_base(tmp_path: Path) -> None:
    model, identity = against(tmp_path / "b", ARRAYS)
    report = validate(adapter(tmp_path / "a"), model, expected=identity, found=identity)
    assert report.findings == ()
    assert report.ok
    assert report.level is Level.EXACT
    assert report.not_checked == NOT_ASKED
    assert set(report.checked) <= RULES.keys()
    report.raise_for_errors()


def test_a_path_and_a_value_give_the_same_report(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    (folder / "optimizer.pt").write_bytes(b"x")
    report = validate(folder)
    assert report == validate(adapters.read(folder))
    assert rules(report, Severity.INFO) == {"SEC001"}
    assert report.ok


def test_a_broken_folder_is_a_report(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", b"", r=0)
    report = validate(folder)
    assert rules(report) == {"FMT001", "CFG004"}
    assert not report.ok
    assert report.not_checked["NUM001"] == "the adapter could not be read so far"
    assert {"FMT007", "TEN004", "NUM001"} <= report.blocked  # nobody looked behind the first bytes
    assert {"FMT001", "CFG011", "SEC001"} <= set(report.checked)
    with pytest.raises(AdapterError) as caught:
        report.raise_for_errors()
    assert caught.value.findings == report.findings
    with pytest.raises(NotFoundError):
        validate(tmp_path / "nothing")


def test_an_unsupported_folder_is_unsupported(tmp_path: Path) -> None:
    report = validate(adapter(tmp_path / "a", new_field=7))
    with pytest.raises(UnsupportedAdapterError):
        report.raise_for_errors()


def test_what_was_not_checked_is_said(tmp_path: Path) -> None:
    report = validate(adapter(tmp_path / "a"), headers_only=True)
    assert report.not_checked == {
        "NUM001": "headers only",
        "NUM002": "headers only",
        "NUM003": "headers only",
        "CFG008": "headers only",
        "TEN005": "no base was given",
        "BASE002": "no base was given",
        "BASE004": "no base was given",
        "BASE005": "no base was given",
        "BASE006": "no base was given",
        "SEC005": "no base was given",
        "BASE007": "no base was given",
        "BASE008": "no base was given",
        "BASE003": "no fingerprint is recorded",
        **NOT_ASKED,
    }
    assert set(report.checked) ^ report.not_checked.keys() == RULES.keys()


# --- the adapter alone ----------------------------------------------------------------------------


def of(tmp_path: Path, tensors: dict[str, Any] | None = None, **fields: object) -> set[str]:
    report = validate(adapter(tmp_path / "a", tensors, **fields))
    return rules(report) | rules(report, Severity.WARNING)


@pytest.mark.parametrize(
    ("fields", "broken"),
    [
        ({"target_modules": ["q_proj", "v_proj"]}, False),
        ({"target_modules": sorted(SHAPES)}, False),
        ({"target_modules": r".*\.(q|v)_proj"}, False),
        ({"target_modules": "all-linear"}, False),
        ({"target_modules": None}, False),
        ({"target_modules": ["q_proj"]}, True),
        ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, True),
        ({"target_modules": r".*\.q_proj"}, True),
        ({"exclude_modules": ["lm_head"]}, False),
        ({"exclude_modules": ["v_proj"]}, True),
        ({"layers_to_transform": [0, 1]}, False),
        ({"layers_to_transform": [0]}, True),
        ({"layers_to_transform": [0, 1], "layers_pattern": ["layers"]}, False),
        ({"layers_to_transform": [1], "layers_pattern": ["layers"]}, True),
    ],
    ids=str,
)
def test_config_and_tensors_name_the_same_modules(
    fields: dict[str, Any], tmp_path: Path, *, broken: bool
) -> None:
    assert of(tmp_path, **fields) == ({"CFG006"} if broken else set())


def test_a_missing_layer_is_warned_of(tmp_path: Path) -> None:
    shapes = {f"model.layers.{n}.{leaf}": (4, 4) for n in range(4) for leaf in ("q_proj", "v_proj")}
    del shapes["model.layers.2.v_proj"]
    report = validate(adapter(tmp_path / "a", factors(shapes)))
    assert rules(report, Severity.WARNING) == {"TEN006"}
    assert report.ok
    assert "model.layers.2.v_proj" in report.findings[0].message


def test_few_layers_on_purpose_are_fine(tmp_path: Path) -> None:
    shapes = {f"model.layers.{n}.q_proj": (4, 4) for n in (0, 30, 31)}
    assert of(tmp_path, factors(shapes), target_modules=["q_proj"]) == set()


def with_factor(leaf: str, values: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {**factors(), f"{PREFIX}{Q}.{leaf}.weight": tensor(values)}


def test_mixed_dtypes(tmp_path: Path) -> None:
    assert of(tmp_path, with_factor("lora_A", np.ones((2, 8), np.float16))) == {"TEN008"}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("leaf", ["lora_A", "lora_B"])
def test_non_finite_values(bad: float, leaf: str, tmp_path: Path) -> None:
    values = np.ones((2, 8) if leaf == "lora_A" else (6, 2), np.float32)
    values[-1, -1] = bad
    assert of(tmp_path, with_factor(leaf, values)) == {"NUM001"}


@pytest.mark.parametrize(
    ("library", "ok"),
    [("os", False), ("train.models", False), ("__main__", True), ("transformers.models", True)],
)
def test_a_library_that_other_loaders_would_import(library: str, ok: bool, tmp_path: Path) -> None:
    mapping = {"base_model_class": "Net", "parent_library": library}
    report = validate(adapter(tmp_path / "a", auto_mapping=mapping))
    assert ("SEC002" in rules(report)) is not ok
    # Reading, and so applying, never imports anything: it is no reason to refuse there.
    assert adapters.read(tmp_path / "a").targets


def test_an_adapter_without_effect(tmp_path: Path) -> None:
    zero = {
        key: tensor(np.zeros(shape, np.float32)) if "lora_B" in key else (dtype, shape, data)
        for key, (dtype, shape, data) in factors().items()
    }
    assert of(tmp_path, zero) == {"NUM003"}
    assert of(tmp_path, with_factor("lora_B", np.zeros((6, 2), np.float32))) == set()


def test_an_adapter_without_any_word_of_its_base(tmp_path: Path) -> None:
    assert of(tmp_path, base_model_name_or_path=None) == {"BASE001"}
    _, identity = against(tmp_path / "b", ARRAYS)
    report = validate(adapter(tmp_path / "a", base_model_name_or_path=None), found=identity)
    assert report.findings == ()


# --- adapter and base -----------------------------------------------------------------------------


def fit(
    tmp_path: Path, arrays: dict[str, Any], tensors: dict[str, Any] | None = None, **fields: object
) -> Report:
    model, identity = against(tmp_path / "b", arrays)
    return validate(adapter(tmp_path / "a", tensors, **fields), model, found=identity)


def test_a_layer_that_the_base_does_not_have(tmp_path: Path) -> None:
    shapes = {**SHAPES, "model.layers.7.self_attn.q_proj": (6, 8)}
    report = fit(tmp_path, ARRAYS, factors(shapes))
    assert rules(report) == {"TEN005"}
    message = report.findings[0].message
    assert "model.layers.7.self_attn.q_proj" in message
    assert "model.layers.0.self_attn.q_proj.weight" in message  # what was meant, perhaps
    with pytest.raises(IncompatibleError):
        report.raise_for_errors()


@pytest.mark.parametrize("shape", [(6, 9), (6, 7), (7, 8), (8, 6), (48,)])
def test_another_hidden_size(shape: tuple[int, ...], tmp_path: Path) -> None:
    report = fit(tmp_path, {**ARRAYS, f"{Q}.weight": np.zeros(shape, np.float32)})
    assert rules(report) == {"BASE002"}
    assert "[6, 8]" in report.findings[0].message
    assert str(list(shape)) in report.findings[0].message


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_a_quantised_base(dtype: type[Any], tmp_path: Path) -> None:
    report = fit(tmp_path, {**ARRAYS, f"{Q}.weight": np.zeros((6, 4), dtype)})
    assert rules(report) == {"BASE006"}


def test_a_packed_base(tmp_path: Path) -> None:
    packed = {n: v for n, v in ARRAYS.items() if n != f"{Q}.weight"}
    packed[f"{Q}.qweight"] = np.zeros((1, 6), np.int8)
    report = fit(tmp_path, packed)
    assert rules(report) == {"BASE006"}
    assert Q in report.findings[0].message


HEAD = {**SHAPES, "lm_head": (10, 8)}
MODULES = ["q_proj", "v_proj", "lm_head"]


@pytest.mark.parametrize("stored", [True, False])
def test_a_head_that_is_tied(stored: bool, tmp_path: Path) -> None:
    head = {"lm_head.weight": ARRAYS["model.embed_tokens.weight"]} if stored else {}
    content = {name: tensor(values) for name, values in (ARRAYS | head).items()}
    model = bases.read(base(tmp_path / "b", content, tie_word_embeddings=True))
    folder = adapter(tmp_path / "a", factors(HEAD), target_modules=MODULES)
    report = validate(folder, model)
    assert rules(report) == {"BASE004"}
    assert "lm_head.weight" in next(f.message for f in report.findings if f.rule == "BASE004")
    report.raise_for_errors()  # applying is exact


def test_a_head_that_the_adapter_brings_and_a_resized_vocabulary(tmp_path: Path) -> None:
    model = bases.read(base(tmp_path / "b"))
    saved = {
        f"{PREFIX}{name}": tensor(np.ones(shape, np.float32))
        for name, shape in {"score.weight": (3, 8), "model.embed_tokens.weight": (12, 8)}.items()
    }
    folder = adapter(tmp_path / "a", factors() | saved, modules_to_save=["score", "embed_tokens"])
    assert rules(validate(folder, model)) == {"BASE005"}
    validate(folder, model).raise_for_errors()  # applying is exact
    saved = {f"{PREFIX}model.other.weight": tensor(np.ones((3, 8), np.float32))}
    folder = adapter(tmp_path / "c", factors() | saved, modules_to_save=["other"])
    assert rules(validate(folder, model)) == {"TEN005"}
    saved = {f"{PREFIX}model.embed_tokens.weight": tensor(np.ones((10, 9), np.float32))}
    folder = adapter(tmp_path / "d", factors() | saved, modules_to_save=["embed_tokens"])
    assert rules(validate(folder, model)) == {"BASE002"}


def test_a_head_of_its_own(tmp_path: Path) -> None:
    content = {n: tensor(v) for n, v in ARRAYS.items()}
    content["lm_head.weight"] = tensor(np.ones((10, 8), np.float32))
    model = bases.read(base(tmp_path / "b", content, tie_word_embeddings=False))
    assert validate(adapter(tmp_path / "a", factors(HEAD), target_modules=MODULES), model).ok


def test_untouched_tensors_may_be_quantised(tmp_path: Path) -> None:
    assert fit(tmp_path, {**ARRAYS, "model.x.weight": np.zeros((6, 4), np.int8)}).ok


def test_a_base_known_by_its_record_only(tmp_path: Path) -> None:
    model, identity = against(tmp_path / "b", ARRAYS)
    known = from_record(to_record(model, "tiny", identity))
    folder = adapter(tmp_path / "a")
    assert validate(folder, known, expected=identity, found=identity).level is Level.EXACT


def test_a_recorded_base_is_expected(tmp_path: Path) -> None:
    model, identity = against(tmp_path / "b", ARRAYS)
    folder = adapter(tmp_path / "a")
    digest = "sha256:" + "0" * 64
    files = [{"path": "adapter_config.json", "size": 1, "digest": digest}]
    record = {"schema": 1, "files": files, "base": identity.model_dump(mode="json")}
    (folder / "rankloom.json").write_text(json.dumps(record))
    assert validate(folder, model, found=identity).level is Level.EXACT


def test_the_same_base_in_other_shards(tmp_path: Path) -> None:
    _, expected = against(tmp_path / "one", ARRAYS)
    content = {name: tensor(values) for name, values in reversed(ARRAYS.items())}
    model = bases.read(base(tmp_path / "three", content, shards=3))
    report = validate(adapter(tmp_path / "a"), model, expected=expected, found=fingerprint(model))
    assert report.ok
    assert report.level is Level.EXACT


def test_a_float32_copy_of_a_bf16_base(tmp_path: Path) -> None:
    bits = {name: bf16_bits(values) for name, values in ARRAYS.items()}
    wide = {n: (codes.astype(np.uint32) << 16).view(np.float32) for n, codes in bits.items()}
    _, expected = against(tmp_path / "bf16", bits)
    model, found = against(tmp_path / "f32", wide)
    report = validate(adapter(tmp_path / "a"), model, expected=expected, found=found)
    assert report.ok
    assert report.level is Level.BF16


def test_the_same_shapes_with_other_values_are_refused(tmp_path: Path) -> None:
    _, expected = against(tmp_path / "one", ARRAYS)
    model, found = against(tmp_path / "two", base_tensors(seed=2))
    report = validate(adapter(tmp_path / "a"), model, expected=expected, found=found)
    assert rules(report) == {"BASE003"}
    assert report.level is None
    assert "values differ" in report.findings[0].message
    with pytest.raises(IncompatibleError):
        report.raise_for_errors()


def test_values_that_were_not_read_are_not_vouched_for(tmp_path: Path) -> None:
    model, expected = against(tmp_path / "b", ARRAYS)
    headers = fingerprint(model, values=False)
    report = validate(adapter(tmp_path / "a"), model, expected=expected, found=headers)
    assert report.level is Level.STRUCT
    assert "BASE003" in report.not_checked
    assert "BASE003" not in report.checked


def test_a_broken_adapter_on_a_wrong_base_is_broken(tmp_path: Path) -> None:
    tensors = with_factor("lora_A", np.full((2, 8), np.nan, np.float32))
    report = fit(tmp_path, {**ARRAYS, f"{Q}.weight": np.zeros((3, 3), np.float32)}, tensors)
    assert rules(report) == {"NUM001", "BASE002"}
    with pytest.raises(AdapterError):
        report.raise_for_errors()


# --- the rules ------------------------------------------------------------------------------------


def test_every_rule_that_the_library_speaks_of_is_described() -> None:
    source = Path(rankloom.__file__).parent
    spoken = set()
    for room in ("tensorfile", "adapter", "base", "validate", "probe"):
        files = (source / room).rglob("*.py")
        for file in (file for file in files if "foreign" not in file.parts):  # those convert
            found = re.findall(r'"((?:FMT|CFG|TEN|BASE|NUM|PRB|SEC|ENG)\d{3})"', file.read_text())
            spoken |= set(found)
    assert spoken == RULES.keys()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_rule_says_why_and_what_to_do(rule: Rule) -> None:
    assert rule.title
    assert rule.why.endswith(".")
    assert rule.fix.endswith((".", "…."))


def test_header_validation_is_quick(tmp_path: Path) -> None:
    leaves = {"q_proj": (64, 64), "k_proj": (16, 64), "v_proj": (16, 64), "o_proj": (64, 64),
              "gate_proj": (96, 64), "up_proj": (96, 64), "down_proj": (64, 96)}  # fmt: skip
    shapes = {f"model.layers.{n}.x.{leaf}": s for n in range(32) for leaf, s in leaves.items()}
    folder = adapter(tmp_path / "a", factors(shapes), target_modules=sorted(leaves))
    arrays = {f"{name}.weight": np.zeros(shape, np.float16) for name, shape in shapes.items()}
    arrays |= {
        f"model.layers.{n}.norm{k}.weight": np.ones(64, np.float16)
        for n in range(32)
        for k in (1, 2)
    }
    arrays |= {
        name: np.zeros((64, 64), np.float16)
        for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    }
    model = bases.read(base(tmp_path / "b", {n: tensor(v) for n, v in arrays.items()}, shards=4))
    assert len(model.tensors) == 291
    assert validate(folder, model, headers_only=True).ok
    assert fastest(lambda: validate(folder, model, headers_only=True), 7) < 0.050


def test_errors_of_a_report_are_ours(tmp_path: Path) -> None:
    for fields in ({"r": 0}, {"use_dora": True}, {"auto_map": {"a": "b"}}):
        (tmp_path / "a").mkdir(exist_ok=True)
        folder = adapter(tmp_path / "a")
        (folder / "adapter_config.json").write_text(json.dumps(config(**fields)))
        with pytest.raises(RankloomError) as caught:
            validate(folder).raise_for_errors()
        assert caught.value.hint
