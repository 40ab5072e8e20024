"""What the rows share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bad_inputs.bounded import Runner

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """Where commands are run and measured."""
    made = Runner()
    yield made
    made.close()
