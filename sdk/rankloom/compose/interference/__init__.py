"""How much adapters disagree where they meet, from their factors alone, before they are composed.

:func:`~rankloom.compose.interference.report.report` measures every target,
``thresholds`` turns the figures into findings, ``heatmap`` draws them. The figures are advice: they
say how deltas lie to each other, not what a model will answer.
"""
