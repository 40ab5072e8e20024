"""The errors of a file of another tool, each with the one finding that it stands for."""

from __future__ import annotations

from rankloom.errors import AdapterError, UnsupportedAdapterError
from rankloom.finding import Finding


def refusal(name: str, what: str, hint: str, rule: str = "TEN009") -> UnsupportedAdapterError:
    """Return the error that something sound cannot be converted exactly."""
    finding = Finding(rule, f"{name} {what}", where=name, fix=hint)
    return UnsupportedAdapterError(f"{rule} {name} {what}", hint=hint, findings=[finding])


def broken(name: str, what: str, rule: str) -> AdapterError:
    """Return the error that a file, or a module's tensors, are broken."""
    hint = "save the adapter again with the tool that made it"
    finding = Finding(rule, f"{name} {what}", where=name, fix=hint)
    return AdapterError(f"{rule} {name} {what}", hint=hint, findings=[finding])
