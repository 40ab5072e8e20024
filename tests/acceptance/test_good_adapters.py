"""No false alarm: what PEFT wrote for a base passes on it, and on every copy that is as good.

Each adapter is pushed with its base and validated by its name, through the command.
"""

from __future__ import annotations

import copy
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import save_file

from acceptance import bases, judge
from acceptance.judge import Case
from loractl.main import main
from peft_cases import edit_config, read_checkpoint, save_model
from rankloom import sdk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

GOOD = {
    "llama": "lora rslora lora-patterns dora kasa bdlora qalora velora orthogonal lora-head "
    "lora-embedding dora-embedding lora-embedding-and-linear saved-head saved-embedding "
    "saved-norm bias-all vera pvera vblora unilora-saved tinylora",
    "llama_tied": "lora lora-tokens trainable-tokens waveft",
    "mistral": "lora-first-layer lora-regex lora-all-linear hra road-1 road-2",
    "qwen2": "lora bias-all bias-lora-only glora shira hra-bias",
    "gemma": "lora delora gralora supertuning",
    "mixtral": "lora lora-experts lora-experts-and-linear loha lokr",
    "qwen2_moe": "lora lora-experts oft",
    "phi": "lora lora-bias beft oft-bias",
    "gpt2": "lora dora adalora ia3 ia3-output fourierft deft hira",
    "bert": "lora saved-head ln-tuning boft boft-bias c3a frod",
    "t5": "lora trainable-tokens osf",
    "vit": "lora lora-conv dora-conv miss peanut randlora",
    "convolutions": "loha-conv lokr-conv saved-norm ln-tuning",
    "attention": "lora-attention",
    "bag": "lora-embedding lora-experts",
}
"""Kinds by base; those that change the values of the base first are errors (CFG010), by design."""

KNOWN = {
    ("velora", "TEN009"): "the file holds what acts in training only",
    ("lora-attention", "BASE008"): "a plain module's square weight",
}
"""Notes, by kind and rule, with what they are right about."""

VOCABULARY = ("lora-head", "saved-head", "tokens", "embedding")
"""Parts of the names of kinds that change rows of the vocabulary."""


class Copies:
    """A base in bfloat16 and its copies, each written once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, name: str, copied: str) -> Path:
        """Return the folder of a base, or of one of its copies."""
        folder = self._root / f"{name}-{copied}"
        if folder.exists():
            return folder
        if copied == "base":
            model = bases.model(name, torch.bfloat16)
            save_model(copy.deepcopy(model).to(torch.bfloat16), folder)
            return folder
        base = self.get(name, "base")
        folder.mkdir()
        if (base / "config.json").exists():
            shutil.copy(base / "config.json", folder)
        COPIES[copied](folder, read_checkpoint(base))
        return folder


def _resharded(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Deal the tensors out to three files with names of their own, in reverse order."""
    places = {name: f"part-{n % 3}.safetensors" for n, name in enumerate(reversed(tensors))}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in places if places[name] == file}, folder / file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _upcast(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    save_file(
        {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()},
        folder / "model.safetensors",
    )


def _resized(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Add 8 words to the vocabulary."""
    grown = {
        name: torch.cat([t, t[:8]]) if t.shape[:1] == (bases.VOCABULARY,) else t
        for name, t in tensors.items()
    }
    assert grown.keys() == tensors.keys()
    assert any(grown[name].shape != tensors[name].shape for name in tensors)
    save_file(grown, folder / "model.safetensors")
    edit = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**edit, "vocab_size": bases.VOCABULARY + 8}))


COPIES = {"resharded": _resharded, "upcast": _upcast, "resized": _resized}
LEVELS = {
    "base": "exact",
    "resharded": "exact",
    "upcast": "bf16",
    "resized": "compatible-subset",
}


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copies]:
    """The bases, and a registry of this module's own."""
    root = tmp_path_factory.mktemp("copies")
    shown = transformers.utils.logging.is_progress_bar_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKLOOM_HOME", str(root / "home"))
        patch.delenv("RANKLOOM_URL", raising=False)
        patch.delenv("GITHUB_ACTIONS", raising=False)
        transformers.logging.disable_progress_bar()
        yield Copies(root)
        sdk._default.close()
        if shown:
            transformers.logging.enable_progress_bar()


def run(*arguments: object) -> Any:  # noqa: ANN401 - JSON is anything
    """Run the command with ``--json``; it must end with 0."""
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


CASES = [Case(kind, base) for base, kinds in GOOD.items() for kind in kinds.split()]


def test_there_are_many() -> None:
    assert len(CASES) >= 80
    assert set(CASES) <= set(judge.cases())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_good_adapter_passes_on_its_base_and_its_copies(
    case: Case, copies: Copies, tmp_path: Path
) -> None:
    judge.write(case, tmp_path / "adapter")
    edit_config(tmp_path / "adapter", base_model_name_or_path="acme/tiny")
    name = case.name.replace(" ", "-")
    run("push", tmp_path / "adapter", name, "--base", copies.get(case.base, "base"))
    for copied, level in LEVELS.items():
        if copied == "resized" and not _takes_another_vocabulary(case):
            continue
        found = run("validate", name, "--against", copies.get(case.base, copied), "--fail-on=error")
        (report,) = found["adapters"]
        assert report["level"] == level
        said = {finding["rule"] for finding in report["findings"] if not _is_known(case, finding)}
        assert said == ({"BASE003"} if copied == "resized" else set()), report["findings"]
        assert not {f["severity"] for f in report["findings"]} - {"info"}
        assert {"NUM001", "TEN005", "BASE002"} <= set(report["checked"])


def _takes_another_vocabulary(case: Case) -> bool:
    base = bases.BASES[case.base]
    has_words = bool(base.embedding) and not base.is_plain
    return has_words and not any(part in case.kind for part in VOCABULARY)


def _is_known(case: Case, finding: dict[str, Any]) -> bool:
    return (case.kind, finding["rule"]) in KNOWN
