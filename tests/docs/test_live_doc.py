from __future__ import annotations

import re
from pathlib import Path

import pytest

from live_models import UNCHECKED, bits, llama, same, targets
from lowrank_cases import Case, part
from rankloom.composition import compose

PAGE = Path(__file__).parents[2] / "docs" / "live.md"


@pytest.mark.filterwarnings(UNCHECKED)
def test_the_example_runs_and_leaves_the_base(tmp_path: Path) -> None:
    model = llama()
    kept, shapes = bits(model), targets(model, "q_proj")
    one, two = (compose([part(Case(shapes, seed=n).write(tmp_path / str(n)))]) for n in range(2))
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {"composition": one, "other": two, "model": model}
    exec(code, names)  # noqa: S102 - our own page
    assert same(model, kept)
    assert not names["handle"]._is_open
