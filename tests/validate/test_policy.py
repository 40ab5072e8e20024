"""What counts of a report, and what a run ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folders import adapter
from rankloom.errors import RefError
from rankloom.finding import Finding, Severity
from rankloom.fingerprint import Level
from rankloom.validate import RULES, Policy, Report, validate
from rankloom.validate.identity import identity

if TYPE_CHECKING:
    from pathlib import Path

WRONG = Finding("TEN004", "r is 3", where="q_proj")
ODD = Finding("TEN006", "a layer is missing", Severity.WARNING, "v_proj")
LEFT = Finding("SEC001", "optimizer.pt is left out", Severity.INFO, "optimizer.pt")


def report(*findings: Finding, **fields: Any) -> Report:  # noqa: ANN401 - any field
    unchecked = fields.get("not_checked", {})
    checked = tuple(rule for rule in RULES if rule not in unchecked)
    return Report("/x/out", findings, checked, **fields)


def code(found: Report, **options: Any) -> int:  # noqa: ANN401 - any option
    policy = Policy(**options)
    return policy.exit_code([policy.judge("out", found)])


@pytest.mark.parametrize(
    ("findings", "fail_on", "expected"),
    [
        ((), Severity.INFO, 0),
        ((LEFT,), Severity.WARNING, 0),
        ((LEFT,), Severity.INFO, 1),
        ((ODD,), Severity.ERROR, 0),
        ((ODD, LEFT), Severity.WARNING, 1),
        ((WRONG,), Severity.ERROR, 1),
    ],
)
def test_what_fails_is_a_matter_of_weight(
    findings: tuple[Finding, ...], fail_on: Severity, expected: int
) -> None:
    assert code(report(*findings), fail_on=fail_on) == expected


def test_what_was_asked_for_and_not_checked_is_never_clean() -> None:
    open_report = report(not_checked={"NUM001": "unreadable"}, blocked=frozenset(["NUM001"]))
    assert code(open_report) == 3
    assert code(open_report, select=("NUM",)) == 3
    assert code(open_report, select=("TEN",)) == 0
    assert code(open_report, ignore=("NUM001",)) == 0
    left_out = report(not_checked={"NUM001": "headers only"})
    assert code(left_out) == 0
    assert code(left_out, select=("NUM001",)) == 3  # by name it was asked for


def test_a_broken_adapter_whose_error_is_ignored_is_open(tmp_path: Path) -> None:
    found = validate(adapter(tmp_path / "a", b""))
    assert code(found) == 1
    assert code(found, ignore=("FMT001",)) == 3
    assert code(found, select=("NUM",)) == 3


@pytest.mark.parametrize(
    ("known", "asked", "expected"),
    [
        (Level.EXACT, Level.EXACT, 0),
        (Level.BF16, Level.EXACT, 3),
        (Level.BF16, Level.BF16, 0),
        (Level.STRUCT, Level.BF16, 3),
        (Level.SUBSET, Level.STRUCT, 3),
        (Level.DERIVED, Level.STRUCT, 3),
        (Level.EXACT, Level.STRUCT, 0),
        (None, Level.STRUCT, 3),
    ],
)
def test_how_well_the_base_must_be_known(known: Level | None, asked: Level, expected: int) -> None:
    found = report(level=known)
    policy = Policy(level=asked)
    judged = policy.judge("out", found)
    assert policy.exit_code([judged]) == expected
    assert ("BASE003" in judged.checked) is not ("BASE003" in judged.not_checked)


def test_another_base_is_an_error_at_any_level() -> None:
    assert code(report(Finding("BASE003", "another base")), level=Level.EXACT) == 1


def test_what_only_comes_from_the_base_is_not_the_level_that_was_asked_for() -> None:
    note = Finding("BASE003", "a longer vocabulary", Severity.INFO)
    assert code(report(note, level=Level.SUBSET)) == 0
    assert code(report(note, level=Level.SUBSET), level=Level.EXACT) == 3
    known = frozenset([identity("out", Finding("BASE003", "another base"), "/x/out")])
    found = report(Finding("BASE003", "another base"))
    assert code(found, level=Level.EXACT, baseline=known) == 3


def test_a_rule_that_is_selected_and_ignored_is_not_asked_for() -> None:
    found = report(not_checked={"TEN005": "no base was given"})
    assert code(found, select=("TEN",)) == 3
    assert code(found, select=("TEN",), ignore=("TEN005",)) == 0


def test_rules_are_left_out_for_some_adapters() -> None:
    policy = Policy(ignore_in={"legacy/*": ("TEN006", "SEC")})
    for name, count in (("legacy/a", 0), ("out", 2)):
        judged = policy.judge(name, report(ODD, LEFT))
        assert len(judged.findings) == count
        assert len(judged.suppressed) == 2 - count


def test_a_baseline_hides_what_was_there_and_nothing_new() -> None:
    known = frozenset([identity("out", ODD, "/x/out")])
    later = Finding("TEN006", "two layers are missing", Severity.WARNING, "v_proj")
    judged = Policy(baseline=known).judge("out", report(ODD, later))
    assert judged.findings == (later,)
    assert judged.suppressed == ((ODD, "in the baseline"),)
    assert Policy(baseline=known).judge("other", report(ODD)).findings == (ODD,)


def test_an_identity_is_the_same_on_every_machine() -> None:
    here, there = (Finding("FMT001", f"{p}/adapter_model.safetensors: no") for p in ("/a", "/b/c"))
    assert identity("out", here, "/a") == identity("out", there, "/b/c")


@pytest.mark.parametrize("field", ["select", "ignore"])
@pytest.mark.parametrize("rules", [("NOPE",), ("",), ("TEN001", "TEN0019")])
def test_rules_that_do_not_exist_are_wrong_usage(field: str, rules: tuple[str, ...]) -> None:
    with pytest.raises(RefError, match="no rule"):
        Policy(**{field: rules})  # type: ignore[arg-type]


PREFIXES = st.lists(st.sampled_from([*RULES, "FMT", "TEN", "BASE", "N", "SEC0"]), max_size=3)


@given(select=PREFIXES, ignore=PREFIXES, unread=st.sets(st.sampled_from(sorted(RULES))))
def test_nothing_is_lost(select: list[str], ignore: list[str], unread: set[str]) -> None:
    """Every finding stays somewhere, and clean means that all that counts was checked."""
    found = report(
        WRONG, ODD, LEFT, not_checked=dict.fromkeys(unread, "why"), blocked=frozenset(unread)
    )
    policy = Policy(select=tuple(select), ignore=tuple(ignore))
    judged = policy.judge("out", found)
    assert {*judged.findings, *(f for f, _ in judged.suppressed)} == {WRONG, ODD, LEFT}
    counting = {
        rule
        for rule in RULES
        if (not select or rule.startswith(tuple(select))) and not rule.startswith(tuple(ignore))
    }
    if policy.exit_code([judged]) == 0:
        assert counting <= set(judged.checked)
        assert "TEN004" not in counting
