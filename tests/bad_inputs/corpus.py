"""The whole corpus."""

from __future__ import annotations

from bad_inputs import compositions, configs, container, hands, names, registries, tensors

FILES = (
    *container.ROWS,
    *configs.ROWS,
    *tensors.ROWS,
    *names.ROWS,
    *registries.NAMED,
    *compositions.ROWS,
)
"""Rows that a command meets in a folder."""

NEVER = (*names.NEVER, *hands.NEVER, *compositions.NEVER)
"""Rows that cannot occur."""

ALL = (*FILES, *registries.ROWS, *hands.ROWS, *NEVER)
"""All of it."""

NUMBERS = range(1, 93)
"""What the corpus numbers; each has a row at least."""
