"""Phones on loopback, for all tests of this folder."""

from tests.phones import lent, one, pool

__all__ = ["lent", "one", "pool"]
