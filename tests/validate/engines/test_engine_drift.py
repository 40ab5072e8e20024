"""The comparison with an engine's wheel sees what changed, and runs nothing of it."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rankloom.validate.engines import choose

if TYPE_CHECKING:
    from types import ModuleType

SCRIPTS = Path(__file__).parents[3] / "scripts"
HELPER, CONFIG = "vllm/lora/peft_helper.py", "vllm/config/lora.py"
HEAD, MODEL = "vllm/lora/layers/logits_processor.py", "vllm/model_executor/models/llama.py"
SOURCES = {
    HELPER: '''
raise RuntimeError("nobody imports this")
class PEFTHelper:
    """Docs."""
    r: int
    lora_alpha: int
    target_modules: list[str] | str
    bias: str = "none"
    def _validate_features(self):
        return [m for m in self.modules_to_save if m not in ["classifier", "score"]]
    def _init_is_supported(self):
        return self.init.lower() in ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
''',
    CONFIG: """
MaxLoRARanks = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]
class LoRAConfig:
    max_lora_rank: MaxLoRARanks = 16
""",
    HEAD: """
class LogitsProcessorWithLoRA:
    def create_lora_weights(self, max_loras):
        if self.vocab_size > 258048:
            raise ValueError
""",
    MODEL: """
class Llama:
    packed_modules_mapping = {'qkv_proj': ['q_proj', 'k_proj', 'v_proj']}
""",
}
PLACES = (f"{HELPER}:PEFTHelper._init_is_supported", "vllm/model_executor/models/:")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("engine_drift", SCRIPTS / "engine_drift.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "engine_drift", module)
    spec.loader.exec_module(module)
    return module


def wheel(script: ModuleType, folder: Path, version: str = "0.33.0", **changed: str) -> Any:  # noqa: ANN401
    path = folder / f"vllm-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in SOURCES.items():
            archive.writestr(name, changed.get(Path(name).stem, text))
        archive.writestr("vllm/native.so", b"\x00")
    return script.Wheel.read(path)


def differences(script: ModuleType, found: Any, known: Any) -> list[str]:  # noqa: ANN401
    sources = {place: script.digest(known, place) for place in PLACES}
    return list(script.drift(found, choose("vllm").engine, sources))


def test_nothing_differs_from_itself_whatever_its_layout(
    script: ModuleType, tmp_path: Path
) -> None:
    known = wheel(script, tmp_path)
    other = SOURCES[HELPER].replace('"""Docs."""', '"""Other docs."""  # and a comment')
    assert differences(script, wheel(script, tmp_path, peft_helper=other), known) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("lora", "320, 512", "320, 512, 1024", "ranks.settings is"),
        ("lora", "= 16", "= 32", "ranks.default is 16, and 32 in the wheel"),
        ("peft_helper", "r: int\n", "r: int = 8\n", "reads.required is"),
        ("peft_helper", '"mica", ', "", "reads.inits is"),
        (
            "peft_helper",
            '"lora_ga")',
            '"lora_ga") or True',
            "_init_is_supported changed: read it again",
        ),
        (
            "peft_helper",
            "def _init_is_supported",
            "def _init",
            "gone: vllm/lora/peft_helper.py has no",
        ),
        ("peft_helper", '["classifier", "score"]', '["score"]', "reads.saved is"),
        ("logits_processor", "258048", "300000", "reads.vocabulary is 258048, and 300000"),
        ("llama", "'k_proj', ", "", "vllm/model_executor/models/: changed"),
    ],
)
def test_every_change_is_seen(
    script: ModuleType, tmp_path: Path, file: str, old: str, new: str, said: str
) -> None:
    known = wheel(script, tmp_path)
    text = next(text for name, text in SOURCES.items() if Path(name).stem == file)
    assert old in text
    found = differences(script, wheel(script, tmp_path, **{file: text.replace(old, new)}), known)
    assert any(said in difference for difference in found), found


def test_another_release_is_said_to_be_one(script: ModuleType, tmp_path: Path) -> None:
    known = wheel(script, tmp_path)
    newer = wheel(script, tmp_path, version="0.34.0")
    assert differences(script, newer, known) == [
        "the file describes 0.33.0, the wheel is 0.34.0",
    ]


def test_digests_are_written_anew(script: ModuleType, tmp_path: Path) -> None:
    found = wheel(script, tmp_path)
    text = f'[sources]\n"{PLACES[0]}" = "00"\n'
    assert script.digest(found, PLACES[0]) in script.rewritten(text, found)


def test_the_two_checks_of_configs_can_disagree(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generated configs tell a check that overlooks one thing from ours."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    differential = importlib.import_module("engine_differential")
    _, none = differential.compare(differential.ours, 300)
    assert none == []

    def careless(config: dict[str, Any], limit: int) -> bool:
        return differential.ours({**config, "use_qalora": False}, limit)

    verdicts, found = differential.compare(careless, 300)
    assert min(verdicts.values()) > 90
    assert found
    assert all(config["use_qalora"] for config, _, _ in found)
