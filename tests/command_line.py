"""What tests of the command share."""

import json
from collections.abc import Callable
from typing import Any

from click.testing import Result

Run = Callable[..., Result]


def answer(result: Result) -> Any:  # noqa: ANN401 - JSON is anything
    """Return what the command printed as JSON."""
    return json.loads(result.stdout)
