"""Draws the scores of a search, trial by trial, as SVG."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.tune.trial import Trial
    from rankloom.tune.tuned import Tuned

WIDTH, HEIGHT = 720, 360
LEFT, TOP, RIGHT, BOTTOM = 70, 40, 20, 50
BLUE, RED, GREY = "rgb(33,102,172)", "rgb(178,24,43)", "rgb(150,150,150)"


def plot(tuned: Tuned) -> str:
    """Return an SVG document: a dot for each trial, a line for the best composition so far.

    Blue dots are compositions of all adapters, grey ones everything else; the red line is the best
    of the grey ones. Every dot tells its weights where a pointer rests on it.
    """
    axes = _Axes(tuned)
    title = f"score on the dev set: {tuned.name(tuned.best or tuned.rival)}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="10">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="12">{escape(title)}</text>',
        *axes.frame(),
        axes.level(
            tuned.rival.score.value, f"best without all adapters: {tuned.name(tuned.rival)}"
        ),
        *_best_so_far(tuned, axes),
        *(_dot(tuned, axes, trial) for trial in tuned.trials),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


class _Axes:
    """Places of trials and scores on the page."""

    def __init__(self, tuned: Tuned) -> None:
        scores = [trial.score.value for trial in tuned.trials]
        self._low, self._high, self._count = min(scores), max(scores), len(scores)

    def x(self, number: float) -> float:
        """Return where a trial stands."""
        return LEFT + (WIDTH - LEFT - RIGHT) * (number + 0.5) / self._count

    def y(self, score: float) -> float:
        """Return where a score stands."""
        share = (score - self._low) / (self._high - self._low) if self._high > self._low else 0.5
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def frame(self) -> Iterator[str]:
        """Yield a line and a number at four heights, and what is along the bottom."""
        for step in range(5):
            score = self._low + (self._high - self._low) * step / 4
            y = self.y(score)
            yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="rgb(225,225,225)"/>'
            yield f'<text x="{LEFT - 6}" y="{y + 3:.1f}" text-anchor="end">{score:.4g}</text>'
        yield f'<text x="{WIDTH / 2:g}" y="{HEIGHT - 15}" text-anchor="middle">trial</text>'
        for number in range(0, self._count, max(1, self._count // 10)):
            yield (
                f'<text x="{self.x(number):.1f}" y="{HEIGHT - BOTTOM + 15}" '
                f'text-anchor="middle">{number}</text>'
            )

    def level(self, score: float, text: str) -> str:
        """Return a line across the page with a remark."""
        y = self.y(score)
        return (
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{RED}" stroke-dasharray="4 3"/>'
            f'<text x="{WIDTH - RIGHT}" y="{y - 4:.1f}" text-anchor="end" fill="{RED}">'
            f"{escape(text)}</text>"
        )


def _best_so_far(tuned: Tuned, axes: _Axes) -> Iterator[str]:
    found = [trial for trial in tuned.trials if _is_whole(tuned, trial)]
    heights = [axes.y(score) for score in accumulate((one.score.value for one in found), max)]
    if len(found) > 1:
        steps = zip(found[1:], heights[1:], strict=True)
        path = "".join(f"H{axes.x(trial.number):.1f}V{y:.1f}" for trial, y in steps)
        start = f"M{axes.x(found[0].number):.1f} {heights[0]:.1f}"
        yield f'<path d="{start}{path}" fill="none" stroke="{BLUE}"/>'


def _dot(tuned: Tuned, axes: _Axes, trial: Trial) -> str:
    score = trial.score.value
    colour = BLUE if _is_whole(tuned, trial) else GREY
    text = escape(f"{trial.number}: {tuned.name(trial)}, {score:.6g}")
    return (
        f'<circle cx="{axes.x(trial.number):.1f}" cy="{axes.y(score):.1f}" r="3.5" '
        f'fill="{colour}"><title>{text}</title></circle>'
    )


def _is_whole(tuned: Tuned, trial: Trial) -> bool:
    return trial.kind == "composition" and tuned.space.has_all(trial.weights)
