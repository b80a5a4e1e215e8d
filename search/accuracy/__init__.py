"""Where a search gets accuracy from: a table, a supernet, a function of the user's own."""

from __future__ import annotations

from hwbench.search.accuracy.base import AccuracySource, CallableAccuracy, checked_accuracy

__all__ = ["AccuracySource", "CallableAccuracy", "checked_accuracy"]
