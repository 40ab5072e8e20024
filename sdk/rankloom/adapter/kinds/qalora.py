"""QALoRA (arXiv 2309.14717), which acts on quantised layers only: on others it is plain LoRA.

PEFT adds to the means of groups of a quantised layer's inputs, so A has in / ``qalora_group_size``
columns there. Anywhere else it makes LoRA of in columns; a base whose shape fits is such a one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.config import FILE
from rankloom.adapter.kinds import factors
from rankloom.finding import Finding

if TYPE_CHECKING:
    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Tensors
    from rankloom.adapter.kinds.reading import Reading

OPTION = "use_qalora"
_SIZE = "qalora_group_size"


def read(config: AdapterConfig, _tensors: Tensors) -> Reading:
    """Refuse groups of one input: both have the same shapes, but not the same scale."""
    if config.options.get(OPTION) is None:
        return factors.reading((), ())
    size = config.raw.get(_SIZE, 16)
    if isinstance(size, int) and size > 1:
        return factors.reading((), ())
    message = f"{FILE}: {_SIZE} is {size!r:.80}: nothing tells whether the layers were quantised"
    fix = f"without quantised layers {OPTION} has no effect: remove it and save the adapter again"
    return factors.reading([Finding("CFG012", message, where=_SIZE, fix=fix)], ())
