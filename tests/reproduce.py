"""Composes by every method and prints what came out; run as a program of its own.

python tests/reproduce.py FOLDER THREADS TILE: FOLDER holds two adapters and a base, TILE is the
size in bytes of the tiles in which a checkpoint is computed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from rankloom import sdk
from rankloom.apply import lanes, workers
from rankloom.digest import of_file
from rankloom.recipe.methods import METHODS, Method
from rankloom.recipe.parameters import REQUIRED

NEEDED = {"t": 0.3, "density": 0.6}


def arguments(method: Method) -> dict[str, Any]:
    """What a method needs to be composed by and saved."""
    found = {
        name: NEEDED[name] for name, known in method.parameters.items() if known.default is REQUIRED
    }
    needs = method.needs_rank or method.engine == "elements"
    return {**found, "method": method.name, **({"rank": 3} if needs else {})}


def digests(folder: Path, tile: int) -> dict[str, str]:
    """Return the digest of each adapter that is saved and of each checkpoint that is made."""
    workers.Tiles = lambda: lanes.Tiles(tile)  # type: ignore[assignment, misc]
    pair = [folder / "one", folder / "two"]
    made = {}
    with tempfile.TemporaryDirectory() as name:
        for number, method in enumerate(METHODS.values()):
            given = arguments(method)
            out = Path(name) / str(number)
            saved = sdk.compose(pair, **given).save(out / "saved")
            made[method.name] = of_file(saved / "rankloom.json")
            if method.engine == "elements":
                given.pop("rank")
            sdk.compose(pair, **given).apply_to(folder / "base", out / "merged")
            shards = sorted((out / "merged").glob("*.safetensors"))
            made[f"{method.name}, applied"] = " ".join(of_file(path) for path in shards)
    return made


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(sys.argv[2]))
    sys.stdout.write(json.dumps(digests(Path(sys.argv[1]), int(sys.argv[3]))))
