"""Adds changes to a base: to a checkpoint on disk, or to a live model and exactly back."""
