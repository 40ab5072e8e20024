"""Makes a plan real: formulas for applying, and an adapter folder for keeping."""
