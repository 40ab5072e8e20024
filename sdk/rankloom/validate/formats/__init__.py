"""Reports in the forms that machines read: JSON, SARIF, JUnit, GitHub's annotations.

Each is a pure function of an :class:`~rankloom.validate.outcome.Outcome`.
"""
