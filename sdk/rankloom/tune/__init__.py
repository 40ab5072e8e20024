"""Weights that are found on a dev set instead of guessed."""
