"""What serving engines do with adapters, as data, one file per engine and version.

A *feature* is something that an adapter has or does; a *cell* of an engine's file says what the
engine does with it, why, and where that was read. :func:`judge` finds the features of an adapter
and looks up the cells.
"""

from rankloom.validate.engines.engine import Cell, Engine, Verdict
from rankloom.validate.engines.features import FEATURES
from rankloom.validate.engines.judge import Judgement, Reason, judge
from rankloom.validate.engines.loading import engines
from rankloom.validate.engines.selection import Chosen, choose
from rankloom.validate.engines.subject import Subject

__all__ = [
    "FEATURES",
    "Cell",
    "Chosen",
    "Engine",
    "Judgement",
    "Reason",
    "Subject",
    "Verdict",
    "choose",
    "engines",
    "judge",
]
