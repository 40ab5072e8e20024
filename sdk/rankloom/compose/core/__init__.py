"""Methods on the few dimensions that the deltas of one target span together.

A *space* says in which coordinates adapters meet, a *rule* what becomes of coordinates there, and
every pair gives factors of at most R = Σr columns; nothing of out × in is ever made.

===========  =============================================================================
``space``    Core Space: coordinates in shared bases of all B and all A
``knots``    KnOTS: coordinates of each delta in the left singular basis of all side by side
``ctm``      CtM: coordinates in r dimensions that all share, so that the result has rank r
``rules``    task arithmetic, TIES, DARE, TSV, Iso-C, on coordinates
``pico``     Pico: first calm the output directions that many adapters crowd
``linear``   the decompositions that these share, with no choice left open
``methods``  spaces and rules by name
===========  =============================================================================
"""
