"""Findings and pictures of a report."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET  # our own output

import pytest
import torch

from factor_cases import make
from rankloom.compose.factors.value import Factors
from rankloom.compose.interference.heatmap import heatmap
from rankloom.compose.interference.report import InterferenceReport, report
from rankloom.compose.interference.thresholds import Thresholds, findings
from rankloom.compose.interference.value import Part
from rankloom.errors import RefError
from rankloom.finding import Severity
from rankloom.recipe.rules import RULES

ADVICE = {name: rule for name, rule in RULES.items() if rule.family == "INT"}
NOTHING = Thresholds(None, None, None, None, None)


def made(angles: dict[str, float], ratio: float = 1.0) -> InterferenceReport:
    """Two adapters whose deltas have these cosines, target by target; one is longer."""
    targets = []
    for name, cosine in angles.items():
        x = torch.zeros(6, 1, dtype=torch.float64)
        y = x.clone()
        x[0], y[0], y[1] = 1, cosine, (1 - cosine**2) ** 0.5
        a = torch.zeros(1, 5, dtype=torch.float64)
        a[0, 0] = 1
        targets.append((name, [Part("zh", ratio, Factors(x, a)), Part("qa", 1.0, Factors(y, a))]))
    return report(targets)


Q, UP = "model.layers.{}.self_attn.q_proj.weight", "model.layers.{}.mlp.up_proj.weight"
FOUR = {Q.format(0): 0.1, UP.format(0): -0.4, Q.format(1): -0.3, UP.format(1): 0.9}


def test_one_finding_for_each_pair_tells_the_worst_target() -> None:
    [found] = findings(made(FOUR), Thresholds())
    assert (found.rule, found.severity) == ("INT002", Severity.WARNING)
    assert found.where == UP.format(0)
    assert "cosine of zh and qa is -0.4 on" in found.message
    assert "below -0.2 on 2 of the 4 targets where they meet (0.075 over all" in found.message
    assert found.fix


@pytest.mark.parametrize("ratio", [5.0, 0.2])
def test_dominance_counts_whoever_is_stronger(ratio: float) -> None:
    [found] = findings(made({Q.format(0): 0.0}, ratio), Thresholds())
    assert found.rule == "INT001"
    assert "dominance of zh and qa is 5 on" in found.message
    assert findings(made({Q.format(0): 0.0}, 3.9), Thresholds()) == ()


def test_each_threshold_is_of_its_own_figure() -> None:
    opposed = made({Q.format(0): -0.8})
    limits = {
        "INT001": Thresholds(0.5, None, None, None, None),
        "INT002": Thresholds(None, -0.7, None, None, None),
        "INT003": Thresholds(None, None, 0.7, None, None),
        "INT004": Thresholds(None, None, None, 0.5, None),
        "INT005": Thresholds(None, None, None, None, 0.5),
    }
    assert set(limits) == set(ADVICE)
    for rule, thresholds in limits.items():
        assert [found.rule for found in findings(opposed, thresholds)] == [rule]
    assert findings(opposed, NOTHING) == ()
    # Cosine −0.8 of equal lengths: 80 % of the squares are lost, all signs are opposed.
    assert findings(opposed, Thresholds(1.01, -0.81, 0.81, 99, 1.0)) == ()


def test_a_delta_of_zero_passes_nothing() -> None:
    nothing = Factors(torch.zeros(6, 1), torch.zeros(1, 5))
    one = Part("one", 1, Factors(torch.ones(6, 1), torch.ones(1, 5)))
    found = report([(Q.format(0), [one, Part("zero", 1, nothing)])])
    assert findings(found, Thresholds(1.0, 0.5, 0.1, 0.1, 0.1)) == ()


SVG = "{http://www.w3.org/2000/svg}"


def cells(picture: str) -> dict[str, str]:
    root = ET.fromstring(picture)  # noqa: S314 - our own output
    found = {}
    for rect in root.iter(f"{SVG}rect"):
        if (title := rect.find(f"{SVG}title")) is not None:
            found[str(title.text)] = rect.attrib["fill"]
    return found


def test_a_picture_has_a_cell_for_each_layer_and_module() -> None:
    picture = heatmap(made(FOUR), "zh", "qa")
    assert cells(picture) == {
        "model.layers.0.mlp.up_proj: -0.4": "rgb(224,163,170)",
        "model.layers.0.self_attn.q_proj: 0.1": "rgb(233,240,247)",
        "model.layers.1.mlp.up_proj: 0.9": "rgb(55,117,180)",
        "model.layers.1.self_attn.q_proj: -0.3": "rgb(232,186,191)",
    }
    assert heatmap(made(FOUR), "qa", "zh") == picture.replace("zh and qa", "qa and zh")


def test_cells_where_they_do_not_meet_are_grey() -> None:
    picture = heatmap(made({Q.format(0): 0.1, UP.format(10): 0.1, UP.format(2): 1}), "zh", "qa")
    found = cells(picture)
    assert found["model.layers.0.mlp.up_proj: none"] == "rgb(225,225,225)"
    assert len(found) == 6
    places = [picture.index(f">model.layers.{layer}<") for layer in (0, 2, 10)]
    assert places == sorted(places)


def test_experts_of_a_layer_share_a_cell() -> None:
    name = "model.layers.0.mlp.experts.{}.w1.weight"
    found = cells(heatmap(made({name.format(e): c for e, c in enumerate((0.2, -0.4))}), "zh", "qa"))
    assert list(found) == ["model.layers.0.mlp.experts.*.w1: -0.1"]


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        ("cancellation", "-0.5"),
        ("dominance", "2"),
        ("overlap_out", "0.25"),
        ("overlap_in", "1"),
        ("crosstalk_out", "0.5"),
        ("crosstalk_in", "1"),
        ("sign_conflict", "0"),
    ],
)
def test_every_figure_can_be_drawn(figure: str, text: str) -> None:
    ratio = 2.0 if figure == "dominance" else 1.0
    [name] = cells(heatmap(made({Q.format(0): 0.5}, ratio), "zh", "qa", figure))  # type: ignore[arg-type]
    assert name.endswith(f": {text}")


def test_names_are_escaped_and_the_picture_is_whole() -> None:
    one = Part("<a & b>", 1, make(5, 4, 2, 1))
    found = report([("x<y.0.z.weight", [one, Part('"c"', 1, make(5, 4, 2, 2))])])
    picture = heatmap(found, "<a & b>", '"c"')
    root = ET.fromstring(picture)  # noqa: S314 - our own output
    width, height = (float(root.attrib[side]) for side in ("width", "height"))
    for rect in root.iter(f"{SVG}rect"):
        right = float(rect.attrib.get("x", 0)) + float(rect.attrib["width"])
        assert right <= width
        assert float(rect.attrib.get("y", 0)) + float(rect.attrib["height"]) <= height
    assert "x<y.0.z" in next(iter(cells(picture)))


def test_adapters_that_do_not_meet_have_no_picture() -> None:
    with pytest.raises(RefError, match="zh and other change no target together"):
        heatmap(made(FOUR), "zh", "other")


def test_rules_say_why_and_what_to_do() -> None:
    for rule in ADVICE.values():
        assert re.fullmatch(r"INT\d{3}", rule.id)
        assert rule.severity is Severity.WARNING
        assert rule.why.endswith(".")
        assert rule.fix.endswith(".")
