"""Every kind of adapter on every architecture, from files to files, judged by PEFT in float64.

What is refused is listed in ``refusals.json`` (``record.py`` writes it): nothing else may be, and
nothing of it may be applied. Kinds are in ``kinds.py``, architectures in ``bases.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import transformers

from acceptance import judge
from acceptance.bases import BASES
from acceptance.judge import Case, Store
from peft_cases import check, read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator


REFUSED = {
    f"{entry['kind']} {base}": entry
    for entry in json.loads((Path(__file__).parent / "refusals.json").read_text())
    for base in entry["bases"]
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The bases on disk, and a home for the command."""
    root = tmp_path_factory.mktemp("bases")
    bars = transformers.utils.logging.is_progress_bar_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKLOOM_HOME", str(root / "home"))
        patch.delenv("RANKLOOM_URL", raising=False)
        transformers.logging.disable_progress_bar()
        yield Store(root)
        if bars:
            transformers.logging.enable_progress_bar()


@pytest.mark.parametrize("case", judge.cases(), ids=lambda case: case.name)
def test_a_kind_on_a_base(case: Case, store: Store, tmp_path: Path) -> None:
    model = judge.write(case, tmp_path / "adapter")
    truth = judge.truth(case, model, tmp_path / "truth")
    base = store.base(case)
    applied = judge.apply([tmp_path / "adapter"], base, tmp_path / "out")
    if case.name in REFUSED:
        entry = REFUSED[case.name]
        assert applied.code, "it is applied now: run record.py"
        assert (applied.rule, truth.peft) == (entry["rule"], entry["peft"])
        assert not (tmp_path / "out").exists()
    else:
        assert applied.code == 0, applied.error
        judge.judge(case, truth, base, tmp_path / "out")


def test_nearly_all_that_peft_merges_soundly_is_applied() -> None:
    names = {case.name for case in judge.cases()}
    assert REFUSED.keys() <= names, "cases are gone: run record.py"
    sound = [name for name in REFUSED if REFUSED[name]["peft"] == "sound"]
    assert len(names) >= 400
    assert len(sound) <= 0.05 * (len(names) - len(REFUSED) + len(sound))


PAIRS = [
    ("lora", "rslora"),
    ("lora", "lora"),
    ("dora", "lora"),
    ("lora-experts", "lora"),
    ("lora-experts", "lora-experts-and-linear"),
    ("loha", "lokr"),
    ("vera", "fourierft"),
    ("adalora", "lora-all-linear"),
    ("ia3", "lora"),
    ("ia3", "ia3-output"),
    ("oft", "boft"),
    ("hra", "hira"),
    ("miss-bat", "road-1"),
    ("glora", "delora"),
    ("lora-conv", "loha-conv"),
    ("saved-norm", "lora"),
    ("lora-tokens", "lora-embedding-and-linear"),
]

COUNTED = [("saved-norm", "convolutions")]


def _pairs() -> Iterator[tuple[Case, Case]]:
    known = set(judge.cases())
    for one, two in PAIRS:
        for base in ("llama", "gpt2", "mixtral", "bert", "vit", "convolutions", "bag"):
            pair = Case(one, base), Case(two, base)
            if ("embedding" in two and BASES[base].tied) or (one, base) in COUNTED:
                continue  # PEFT's merge is no truth there; a counter cannot be weighted
            if known.issuperset(pair) and not REFUSED.keys() & {case.name for case in pair}:
                yield pair


@pytest.mark.parametrize("pair", list(_pairs()), ids=lambda pair: f"{pair[0].name} {pair[1].kind}")
def test_a_composition_is_the_weighted_sum_of_its_parts(
    pair: tuple[Case, Case], store: Store, tmp_path: Path
) -> None:
    """W + Σ wᵢ·(Wᵢ′ − W), each Wᵢ′ being what PEFT makes of W with adapter i alone."""
    weights = 0.75, -0.5
    base = store.base(pair[0])
    before = read_checkpoint(base)
    exact = {name: tensor.double() for name, tensor in before.items()}
    for number, (case, weight) in enumerate(zip(pair, weights, strict=True)):
        model = judge.write(case, tmp_path / f"{number}", seed=number, like=pair[0])
        truth = judge.truth(case, model, tmp_path / f"truth{number}")
        assert truth.weights is not None
        for name, tensor in before.items():
            exact[name] += weight * (truth.weights[name].double() - tensor.double())
    exact = {
        name: tensor if before[name].is_floating_point() else before[name]
        for name, tensor in exact.items()
    }
    folders = [tmp_path / "0", tmp_path / "1"]
    for out, order in (("ab", [0, 1]), ("ba", [1, 0])):
        chosen = ",".join(str(weights[number]) for number in order)
        applied = judge.apply([folders[n] for n in order], base, tmp_path / out, chosen)
        assert applied.code == 0, applied.error
        check(read_checkpoint(tmp_path / out), exact, before)


@pytest.mark.parametrize(
    "kind", ["lora", "dora", "lora-experts", "loha", "ia3", "oft", "saved-norm", "lora-tokens"]
)
def test_weight_one_changes_no_bit(kind: str, store: Store, tmp_path: Path) -> None:
    case = Case(kind, "mixtral")
    judge.write(case, tmp_path / "adapter")
    base = store.base(case)
    written = []
    for out, weights in (("plain", ""), ("one", "1")):
        assert judge.apply([tmp_path / "adapter"], base, tmp_path / out, weights).code == 0
        files = sorted((tmp_path / out).glob("*.safetensors"))
        written.append({file.name: file.read_bytes() for file in files})
    assert written[0] == written[1]
