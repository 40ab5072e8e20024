"""Asks vLLM's own check of a config and ours for the same verdict, on many generated configs.

    python scripts/engine_differential.py WHEEL [COUNT]

The class ``PEFTHelper`` is taken from the wheel by its syntax tree and run alone, with its imports
replaced; nothing else of the wheel is run. Configs have the types that PEFT writes, and wrong
values of these types; whatever the class raises is a refusal.
"""

import ast
import dataclasses
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

from engine_drift import Wheel
from rankloom.validate.engines import Subject, Verdict, choose, judge

SOURCE = "vllm/lora/peft_helper.py"
COUNT = 5000
_SILENT = SimpleNamespace(info_once=lambda *_: None)
_LEFT_OUT = object()

VALUES: dict[str, tuple[Any, ...]] = {
    "r": (1, 4, 8, 16, 17, 64, 320, 512, 513, 8.0, True, 0, -4, None, "8", _LEFT_OUT),
    "lora_alpha": (1, 16, 16.5, 0, -8, None, "16", _LEFT_OUT),
    "target_modules": (["q_proj"], "all-linear", ".*_proj", None, _LEFT_OUT),
    "bias": ("none", "all", "lora_only", None, _LEFT_OUT),
    "modules_to_save": (
        *(None, [], ["score"], ["classifier", "score"], ["lm_head"], ["score", "embed_tokens"]),
        *(["norm"], ["model.score"], _LEFT_OUT),
    ),
    "use_rslora": (False, True, _LEFT_OUT),
    "use_dora": (False, True, None, _LEFT_OUT),
    "lora_bias": (False, True, _LEFT_OUT),
    "init_lora_weights": (
        *(True, False, None, "gaussian", "Gaussian", "eva", "orthogonal", "mica", "lora_ga"),
        *("pissa", "pissa_niter_16", "olora", "corda", "loftq", "true", "", _LEFT_OUT),
    ),
    "alora_invocation_tokens": (None, [], [1, 2], _LEFT_OUT),
    "layer_replication": (None, [], [[0, 4], [2, 5]], _LEFT_OUT),
    "use_bdlora": (None, {}, {"nblocks": 2}, _LEFT_OUT),
    "use_qalora": (False, True, _LEFT_OUT),
    "rank_pattern": (
        *(None, {}, {"q_proj": 4}, {"q_proj": 64, "v": 8}, {"q_proj": 1024}, {"a": 0}),
        *({"a": -1}, {"a": "8"}, {"a": 8.0}, {"a": True}, {"a": None}, _LEFT_OUT),
    ),
    "alpha_pattern": (None, {}, {"q_proj": 4}, {"q_proj": 0.5}, _LEFT_OUT),
    "peft_version": ("0.21.2", _LEFT_OUT),
    "a_field_of_the_future": (True, [1], _LEFT_OUT),
}
"""Values of each field; the first is harmless."""


def helper(wheel: Wheel) -> Any:  # noqa: ANN401 - a class of the wheel
    """Return vLLM's class, by itself."""
    module = ModuleType("peft_helper_of_the_wheel")
    module.__dict__.update(
        dataclass=dataclasses.dataclass,
        field=dataclasses.field,
        fields=dataclasses.fields,
        MISSING=dataclasses.MISSING,
        Literal=Literal,
        LoRAConfig=SimpleNamespace,
        math=math,
        re=re,
        logger=_SILENT,
    )
    sys.modules[module.__name__] = module
    found = wheel.find(SOURCE, "PEFTHelper")
    assert isinstance(found, ast.ClassDef)  # noqa: S101 - else ``find`` raised
    tree = ast.Module(body=[found], type_ignores=[])
    exec(compile(tree, SOURCE, "exec"), module.__dict__)  # noqa: S102 - one class of a pinned wheel
    return module.__dict__["PEFTHelper"]


def refuses(theirs: Any, config: dict[str, Any], max_lora_rank: int) -> bool:  # noqa: ANN401
    """Tell whether vLLM's class refuses a config."""
    try:
        theirs.from_dict(config).validate_legal(SimpleNamespace(max_lora_rank=max_lora_rank))
    except Exception:
        return True
    return False


def generated(random_: random.Random) -> dict[str, Any]:
    """Return a config: mostly harmless, so that one wrong value decides as often as many do."""
    share = random_.choice((0.02, 0.1, 0.5))
    chosen = {
        name: random_.choice(values) if random_.random() < share else values[0]
        for name, values in VALUES.items()
    }
    return {name: value for name, value in chosen.items() if value is not _LEFT_OUT}


def ours(config: dict[str, Any], max_lora_rank: int) -> bool:
    """Tell whether our file says that vLLM refuses a config."""
    chosen = choose(f"vllm,max_lora_rank={max_lora_rank}")
    return judge(Subject({"peft_type": "LORA", **config}), chosen).verdict is Verdict.REJECT


def compare(
    theirs: Callable[[dict[str, Any], int], bool], count: int
) -> tuple[Counter[bool], list[tuple[dict[str, Any], int, bool]]]:
    """Return how often each verdict was given, and where ours is another one.

    Args:
        theirs: tells whether a config is refused under a ``max_lora_rank``.
        count: number of configs.
    """
    random_ = random.Random(0)  # noqa: S311 - the same configs every time
    ranks = choose("vllm").engine.ranks.settings
    verdicts: Counter[bool] = Counter()
    disagreements = []
    for _ in range(count):
        config, limit = generated(random_), random_.choice(ranks)
        refused = theirs(config, limit)
        verdicts[refused] += 1
        if ours(config, limit) is not refused:
            disagreements.append((config, limit, refused))
    return verdicts, disagreements


def main(path: str, count: str = str(COUNT)) -> int:
    """Compare, and return how often the verdicts differ."""
    found = helper(Wheel.read(Path(path)))
    verdicts, disagreements = compare(lambda c, limit: refuses(found, c, limit), int(count))
    for config, limit, refused in disagreements[:5]:
        print(f"vLLM {'refuses' if refused else 'accepts'} under {limit}: {config}")
    print(
        f"{count} configs: {verdicts[True]} refused, {verdicts[False]} accepted by vLLM's class, "
        f"{len(disagreements)} disagreements"
    )
    return len(disagreements)


if __name__ == "__main__":
    sys.exit(min(main(*sys.argv[1:]), 1))
