"""Evaluates what is added to one base tensor, tile by tile; the only room that reads factors."""
