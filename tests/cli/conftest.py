import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

from adapter_folder import MODULES, WIDTH, write_adapter
from command_line import Run
from loractl.main import main
from rankloom import sdk


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a base and two adapters, and a home of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANKLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RANKLOOM_URL", raising=False)
    write_adapter(tmp_path / "zh")
    write_adapter(tmp_path / "qa", seed=1, rank=2)
    (tmp_path / "base").mkdir()
    random = np.random.default_rng(7)
    weights = {
        f"{name}.weight": random.normal(size=(WIDTH, WIDTH)).astype(np.float32) for name in MODULES
    }
    save_file(weights, tmp_path / "base/model.safetensors")
    (tmp_path / "base/config.json").write_text(json.dumps({"model_type": "llama"}))
    yield tmp_path
    sdk._default.close()


@pytest.fixture
def run() -> Run:
    """Run the command in this process; ``code`` is the exit code that is expected."""

    def call(*arguments: str, code: int = 0) -> Result:
        # What the command itself reads of sys.argv is what a shell would have given it.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["loractl", *arguments])
            result = CliRunner().invoke(main, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return call
