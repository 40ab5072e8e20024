"""Recipes, locks and plans: what a composition will be, as values, before a factor is read."""
