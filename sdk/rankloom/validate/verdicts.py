"""What every known engine does with an adapter as it starts by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.errors import RefError
from rankloom.validate import fit
from rankloom.validate.engines import choose, engines, judge
from rankloom.validate.engines import subject as subjects

if TYPE_CHECKING:
    from rankloom.adapter.reader import Adapter
    from rankloom.base.model import Base
    from rankloom.validate.engines import Verdict


def verdicts(
    adapter: Adapter, base: Base | None = None, *, same: bool | None = None
) -> dict[str, Verdict]:
    """Return each engine's verdict, by how :func:`engine_of` writes the engine; headers alone.

    Args:
        adapter: the adapter.
        base: the base beside which it is judged; without one, what shows there is not seen.
        same: whether it is the base that the adapter was made for; ``None``: not known.
    """
    beside = None
    if base is not None:
        placing = fit.place(adapter, base)
        beside = subjects.Fit(base, placing.placed, placing.lost, same)
    subject = subjects.of_adapter(adapter, beside)
    return {engine.pinned: judge(subject, choose(engine.pinned)).verdict for engine in engines()}


def engine_of(text: str) -> str:
    """Return the one name under which verdicts of an engine are recorded, e.g. ``vllm==0.33.0``.

    Args:
        text: as behind ``--engine``, but without a setting.

    Raises:
        RefError: there is no such engine, or it is set to a rank.
        UnknownEngineError: nobody has described this version.
    """
    chosen = choose(text)
    if "," in text:
        message = f"verdicts are recorded for engines as they start by default, not for {text}"
        raise RefError(message, hint=f"'loractl validate REF --engine {text}' judges one adapter")
    return chosen.engine.pinned
