"""Writes ``refusals.json``: what is refused, why, and what PEFT's merge is worth there.

``python tests/acceptance/record.py`` takes a few minutes; read what changed before you commit it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))


def outcome(number: int) -> tuple[str, str, str, str, str] | None:
    """Return (kind, base, rule, PEFT's worth, reason) of a case that is refused."""
    import torch
    import transformers

    from acceptance import judge

    torch.set_num_threads(1)  # two processes share the cores
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    case = judge.cases()[number]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["RANKLOOM_HOME"] = name
        model = judge.write(case, folder / "adapter")
        truth = judge.truth(case, model, folder / "truth")
        base = judge.Store(folder).base(case)
        applied = judge.apply([folder / "adapter"], base, folder / "out")
        reason = applied.error.splitlines()[0].replace(f"{folder}/", "") if applied.code else ""
    if not applied.code:
        return None
    return case.kind, case.base, applied.rule, truth.peft, reason.removeprefix(f"{applied.rule} ")


def main() -> None:
    """Run every case and write the list."""
    from acceptance import judge

    with get_context("spawn").Pool(2) as pool:
        found = pool.map(outcome, range(len(judge.cases())), chunksize=8)
    entries: dict[tuple[str, str, str], dict[str, object]] = {}
    for item in filter(None, found):
        kind, base, rule, peft, reason = item
        first = {"kind": kind, "rule": rule, "peft": peft, "reason": reason, "bases": []}
        entry = entries.setdefault((kind, rule, peft), first)
        entry["bases"] += [base]  # type: ignore[operator]
    text = json.dumps(list(entries.values()), indent=1, ensure_ascii=False)
    (HERE / "refusals.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
