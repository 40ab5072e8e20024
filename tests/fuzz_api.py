"""Requests made from the interface's own description, good and bad: none ends in a fault of ours.

::

    python tests/fuzz_api.py --cases 5000       a long run, on SQLite and a folder
"""

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import hypothesis
import schemathesis
from fastapi import FastAPI

from rankloom_server.access import LOCAL
from rankloom_server.app import create_app
from rankloom_server.routes import deps
from rankloom_server.settings import Settings


def fuzz(app: FastAPI, cases: int) -> Counter[int]:
    """Send about so many requests, shared out evenly over all operations; return the statuses.

    Raises:
        AssertionError: an answer was 5xx, or an error that is no problem+json.
    """
    # Whoever asks may do everything: a made-up token would only ever be refused at the door.
    app.dependency_overrides[deps.actor_of] = lambda: LOCAL
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    each = -(-cases // len(operations))
    seen: Counter[int] = Counter()
    for operation in operations:
        modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
        for share, mode in ((each - each // 2, modes[0]), (each // 2, modes[1])):
            _send(operation, mode, share, seen)
    return seen


def _send(operation, mode, count, seen):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Send ``count`` cases of one operation."""

    @hypothesis.settings(
        max_examples=max(count, 1),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def one(case: schemathesis.Case) -> None:
        answered = case.call()
        seen[answered.status_code] += 1
        what = f"{case.method} {case.formatted_path}: {answered.status_code} {answered.text[:300]}"
        assert answered.status_code < 500, what
        if answered.status_code >= 400:
            kind = answered.headers.get("content-type", [""])[0]
            assert kind.startswith("application/problem+json"), what

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the tool says of itself is not of ours
        try:
            one()
        except hypothesis.errors.Unsatisfiable:
            return  # an operation without parameters has no bad requests


def main() -> int:
    """Run it long, and print what was answered."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=5000)
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder)))
        seen = fuzz(app, parser.parse_args().cases)
        app.state.service.close()
    sys.stdout.write(f"{sum(seen.values())} requests: {dict(sorted(seen.items()))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
