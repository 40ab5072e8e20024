"""Keys of the random numbers that a method draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom_kernels.masks import stream_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.recipe.plan import PlannedTarget


def keys(
    seed: int, target: PlannedTarget, digests: Sequence[str], expert: int | None
) -> tuple[int, ...]:
    """Return the key of each adapter's stream on one matrix.

    Args:
        seed: of the recipe.
        target: the target.
        digests: of the adapters.
        expert: number of the matrix, where there are several.
    """
    name = target.name if expert is None else f"{target.name}[{expert}]"
    return tuple(stream_key(seed, digest, name) for digest in digests)
