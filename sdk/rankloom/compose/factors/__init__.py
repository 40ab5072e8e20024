"""Mathematics of one target's deltas from their factors alone; nothing of out × in is ever made.

Every delta comes in as :class:`~rankloom.compose.factors.value.Factors`, scale folded in. All
methods here give Σ cₜ·Δₜ, and each is a way to find the c from the deltas' inner products, so the
result is an exact adapter whose rank is the sum of the ranks, or the best one of a smaller rank.

=================  ======================================================
``value``          factors, and several joined to one
``gram``           inner products ⟨Δa, Δb⟩
``core``           the same deltas in the few dimensions they span
``recompress``     the best approximation of a smaller rank
``rank``           how that rank is chosen
``methods``        every method by name; each has a module of its own
``directions``     lengths and angles, which those are functions of
=================  ======================================================
"""
