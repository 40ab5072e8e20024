"""How long a person waits for ``loractl``: whole processes, medians of five after a warm-up.

Each command must succeed and must not import torch; otherwise nothing is reported.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from report import Timing, write

LORACTL = Path(sys.executable).with_name("loractl")
RUNS = 5
LAYERS, WIDTH, RANK = 4, 64, 8
LIMITS = {"--help": 0.3, "validate (headers)": 0.3, "list (server)": 0.4, "list (embedded)": 1.0}


def main() -> None:
    """Measure all commands, print and write the table; exit 1 if one is slower than its limit."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ["RANKLOOM_HOME"] = str(place / "home")
        write_folders(place)
        run("push", f"{place}/adapter", "demo", "--base", f"{place}/base")
        results = {
            "--help": timed("--help"),
            "validate (headers)": timed(
                "validate", f"{place}/adapter", "--against", f"{place}/base", "--headers-only"
            ),
            "list (embedded)": timed("list"),
        }
        with served(place) as environment:
            results["list (server)"] = timed("list", environment=environment)
    for label, timing in results.items():
        spread = f"{timing.fastest:.3f} to {timing.slowest:.3f}"
        print(f"{label:20} {timing.median:.3f} s ({spread}), limit {LIMITS[label]} s")
    print(write("command_latency", results, packages=("rankloom", "click", "httpx")))
    sys.exit(any(timing.median > LIMITS[label] for label, timing in results.items()))


def write_folders(place: Path) -> None:
    """Write a base and an adapter that fits it."""
    random = np.random.default_rng(0)
    modules = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(LAYERS)]
    base, adapter = place / "base", place / "adapter"
    base.mkdir()
    adapter.mkdir()
    square, low = (WIDTH, WIDTH), (RANK, WIDTH)
    weights = {f"{name}.weight": random.normal(size=square).astype("f4") for name in modules}
    save_file(weights, base / "model.safetensors")
    (base / "config.json").write_text(json.dumps({"model_type": "llama"}))
    factors = {}
    for name in modules:
        prefix = f"base_model.model.{name}"
        factors[f"{prefix}.lora_A.weight"] = random.normal(size=low).astype("f4")
        factors[f"{prefix}.lora_B.weight"] = random.normal(size=low[::-1]).astype("f4")
    save_file(factors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))


def run(*arguments: str, environment: dict[str, str] | None = None) -> None:
    """Run a command that must succeed."""
    given = {**os.environ, **(environment or {})}
    subprocess.run([LORACTL, *arguments], check=True, stdout=subprocess.DEVNULL, env=given)


def timed(*arguments: str, environment: dict[str, str] | None = None) -> Timing:
    """Return the wall time of a command, after one run that also proves that torch stays out."""
    given = {**os.environ, **(environment or {}), "PYTHONPROFILEIMPORTTIME": "1"}
    seen = subprocess.run([LORACTL, *arguments], check=True, capture_output=True, env=given)
    if any(line.split()[-1] == b"torch" for line in seen.stderr.splitlines() if line.strip()):
        sys.exit(f"loractl {' '.join(arguments)} imported torch")
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        run(*arguments, environment=environment)
        seconds.append(time.perf_counter() - started)
    return Timing.of(seconds)


@contextmanager
def served(place: Path) -> Iterator[dict[str, str]]:
    """Serve the same registry; give the environment that points the command at it."""
    command = [LORACTL, "serve", "--port", "0"]
    with (
        (place / "server.log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as running,
    ):
        assert running.stdout is not None  # noqa: S101 - it is a pipe
        url = running.stdout.readline().decode().split()[-1]
        token = running.stdout.readline().decode().split()[-1]
        try:
            yield {"RANKLOOM_URL": url, "RANKLOOM_TOKEN": token}
        finally:
            running.terminate()


if __name__ == "__main__":
    main()
