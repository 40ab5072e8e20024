"""Methods that decide element by element, on true deltas, of which only a few rows ever exist.

Each method of :mod:`~rankloom.compose.tiles.methods` returns an
:class:`~rankloom.compose.tiles.elementwise.Elementwise`: rows of the combined delta on request,
the same bits whichever rows are asked for together. Whoever applies it adds rows to a base tensor
and rounds once; whoever wants to keep it as an adapter lets
:func:`~rankloom.compose.tiles.to_factors.to_factors` approximate it.

================  ==================================================================
``deltas``        deltas from their factors, exact until they become float32
``threshold``     exact quantiles of magnitudes, by counting
``sift``          which elements of each delta stay
``consensus``     how those that stay become one
``elementwise``   the two together, by rows
``methods``       the methods by name, with their papers; ``sce`` has a module of its own
``to_factors``    the best factors for what has none
================  ==================================================================
"""
