"""Repairs what is mechanical in an adapter's folder: exact, verified, or left as it is."""

from rankloom.repair.repair import Repaired, repair

__all__ = ["Repaired", "repair"]
